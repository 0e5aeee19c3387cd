"""A device that is none: tensors that say they are elsewhere, to see when the host waits for them.

On a machine without a GPU a tensor of :class:`Elsewhere` computes on the CPU, but claims to live on
torch's "meta" device, so that whatever depends on where tensors live behaves as with a GPU: ``.to``
and ``.cpu()`` are copies, ``.item()`` and ``nonzero`` go through the dispatcher, where
:class:`Watching` counts what would make the host wait for a GPU:

* numbers read by the host (``item``, ``bool``, ``tolist``), copies to the host;
* sizes that depend on values (``nonzero``, indexing by a mask, ``unique``, ...);
* copies to the device, unless ``non_blocking``.

Python implementations of our own ``torch.library`` ops are looked into. Not seen is what CUDA does
beside PyTorch's dispatcher: memory that runs out, a library that waits by itself.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mask2former.ops.implementation import use_implementation, use_kernel

DEVICE = torch.device("meta")
_READS = {"_local_scalar_dense": "a number is read", "equal": "tensors are compared"}
_SIZED_BY_VALUES = ("nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive")
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")


class Wait(NamedTuple):
    """One moment at which the host would wait.

    Args:
        why: in words.
        where: ``file:line (function)`` of the innermost frame of this project.
    """

    why: str
    where: str


class Elsewhere(Tensor):
    """A CPU tensor that says it is on :data:`DEVICE`."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
        )
        wrapper.inner = inner
        return wrapper

    def tolist(self):
        """By a copy to the host, as from a GPU; of itself it knows only plain tensors."""
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"Elsewhere({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} outside of `with Watching()`")


class Watching(TorchDispatchMode):
    """Runs what is asked of :class:`Elsewhere` tensors on the CPU, and keeps a list of waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:
        kwargs = dict(kwargs or {})
        leaves = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        is_elsewhere = any(isinstance(x, Elsewhere) for x in leaves)
        goes_elsewhere = is_elsewhere
        if kwargs.get("device") is not None:
            goes_elsewhere = torch.device(kwargs["device"]) == DEVICE
            kwargs["device"] = torch.device("cpu")
        if not (is_elsewhere or goes_elsewhere):
            return func(*args, **kwargs)
        own = _python_implementation(func)
        if own is not None:
            with self:
                return own(*args, **kwargs)
        if why := _why_it_waits(func, leaves, goes_elsewhere, kwargs):
            self.waits.append(Wait(why, _place()))

        wrappers = {id(x.inner): x for x in leaves if isinstance(x, Elsewhere)}

        def wrapped(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            if id(x) in wrappers:  # an in-place op gives back what it got
                return wrappers[id(x)]
            return Elsewhere(x) if goes_elsewhere else x

        args, kwargs = tree_map(_unwrapped, (args, kwargs))
        return tree_map(wrapped, func(*args, **kwargs))


@contextmanager
def watching() -> Iterator[Watching]:
    """Within, ``DEVICE`` can be used."""

    def with_the_cpus(original: Callable) -> Callable:
        def called(*args, **kwargs):
            return original(*("cpu" if a == DEVICE.type else a for a in args), **kwargs)

        return called

    # Autocast knows no such device.
    about_autocast = {
        name: with_the_cpus(getattr(torch, name))
        for name in ("autocast", "is_autocast_enabled", "get_autocast_dtype")
    }
    # Kernels are asked for by the pretended device, which has them all, and run on the CPU.
    implementation = "auto" if use_kernel("cpu") else "reference"
    with (
        use_implementation(implementation),
        Watching() as mode,
        mock.patch.multiple(torch, **about_autocast),
    ):
        yield mode


def move(module: nn.Module) -> nn.Module:
    """Parameters and buffers of a module go to :data:`DEVICE`; in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(
                    Elsewhere(parameter.detach()), requires_grad=parameter.requires_grad
                )
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = Elsewhere(buffer)
    return module


def _unwrapped(x: Any) -> Any:
    return x.inner if isinstance(x, Elsewhere) else x


def _python_implementation(func):
    """Of a ``torch.library.custom_op`` of this project, else None."""
    if func.namespace != "mask2former":
        return None
    from torch._library.custom_ops import OPDEFS

    definition = OPDEFS.get(func._schema.name)
    return definition._init_fn if definition is not None else None


def _why_it_waits(func, leaves: list[Tensor], goes_elsewhere: bool, kwargs: dict) -> str | None:
    name = func.overloadpacket.__name__
    if name in _READS:
        return _READS[name]
    if name in _SIZED_BY_VALUES or (
        name == "repeat_interleave" and kwargs.get("output_size") is None and len(leaves) == 1
    ):
        return f"{name} gives as many entries as the values say"
    if name in _INDEXING and any(x.dtype in (torch.bool, torch.uint8) for x in leaves[1:]):
        return "a mask is an index"
    if name == "copy_":
        to, source = (isinstance(x, Elsewhere) for x in leaves[:2])
        crosses, goes_elsewhere = to != source, to
    elif name == "_to_copy":
        crosses = isinstance(leaves[0], Elsewhere) != goes_elsewhere
    else:
        return None
    if not crosses:
        return None
    if not goes_elsewhere:
        return "a copy to the host"
    return None if kwargs.get("non_blocking") else "a copy to the device that is not non_blocking"


def _place() -> str:
    for frame in reversed(traceback.extract_stack()):
        for package in ("mask2former/", "detectron2/"):
            file = frame.filename.rpartition(package)[2]
            if package in frame.filename and not file.startswith("benchmark/"):
                return f"{file}:{frame.lineno} ({frame.name})"
    return "unknown place"
