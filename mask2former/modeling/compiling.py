"""torch.compile for the parts of a model: ``MODEL.COMPILE`` and ``SOLVER.COMPILE``.

Three graphs: the network (images to predictions), the criterion with its matcher, and
post-processing. Parts are compiled in place, so parameter names stay as they are. docs/compile.md
has what it gains.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .errors import CompilerError
from .mask_predictions import MaskPredictions
from .matcher import HungarianMatcher, matches_layers_together
from .postprocessing.compiled import CompiledSegmentation
from .targets import PackedTargets

logger = logging.getLogger(__name__)

BACKEND = "inductor"
# Sides of a batch are multiples of it, and the graph is told so: what is left of them at stride 32
# is then a whole number, and not an expression that grows with every layer.
CELL = 32


def compile_for_inference(
    model: nn.Module,
    *,
    backend: str | Callable | None = None,
    fullgraph: bool = False,
    postprocessing: bool | None = None,
) -> nn.Module:
    """Has the network, and on a GPU post-processing, compiled at the first call.

    Args:
        model: in evaluation mode, with its final weights; changed in place.
        backend: of torch.compile.
        fullgraph: makes a graph break an error.
        postprocessing: whether it is compiled, too. None: not on a CPU, where looking at the chosen
            queries only is faster than any graph of all of them.

    Returns:
        ``model``.

    Raises:
        CompilerError: inductor, the default backend, has no compiler to work with.
    """
    options = _options(model, "MODEL.COMPILE", backend, fullgraph)
    _compile_network(model, options)
    if postprocessing is None:
        postprocessing = next(model.parameters()).device.type != "cpu"
    if postprocessing and hasattr(model, "segment"):
        model.segment = CompiledSegmentation(options)
    return model


def compile_for_training(
    model: nn.Module, *, backend: str | Callable | None = None, fullgraph: bool = False
) -> nn.Module:
    """Has the network and the criterion compiled, at their first call in training.

    The model runs uncompiled while it is in evaluation mode. A matcher that is no
    :class:`~.matcher.HungarianMatcher` works on the host, so the criterion around it is not
    compiled. Arguments, result and errors: see :func:`compile_for_inference`.
    """
    options = _options(model, "SOLVER.COMPILE", backend, fullgraph)
    _compile_network(model, options, only_in_training=True)
    criterion = getattr(model, "criterion", None)
    if criterion is None:
        return model
    why = _why_not(criterion)
    if why:
        logger.warning("SOLVER.COMPILE: the criterion is not compiled: %s", why)
    else:
        criterion.losses_of = CompiledMethod(
            criterion, "losses_of", options, prepare=_tensors_of_criterion, only_in_training=True
        )
    return model


def check_compiler(key: str, device: torch.device | str) -> None:
    """What inductor needs on a device.

    Raises:
        CompilerError: it is not there; names ``key`` and the remedy.
    """
    wanted = os.environ.get("CXX")
    found = [name for name in ((wanted,) if wanted else ("g++", "clang++")) if shutil.which(name)]
    if not found:
        raise CompilerError(
            f"{key} True needs a C++ compiler, but {wanted or 'neither g++ nor clang++'} is "
            "found: install one (Debian, Ubuntu: apt install g++; conda: conda install gxx), name "
            f"it in the environment variable CXX, or set {key} False"
        )
    if torch.device(device).type == "cuda" and not torch.utils._triton.has_triton():
        raise CompilerError(
            f"{key} True needs triton on a GPU (pip install triton), which is not found or does "
            f"not support this GPU: set {key} False"
        )


class FreeSizes:
    """Sizes are constants of a graph until another one comes; then all are free, for good.

    So training on crops of one size has the faster graph of constants, and images of any sizes are
    compiled twice.
    """

    def __init__(self) -> None:
        self.first: list[int] | None = None
        self.free = False

    def __call__(self, tensors: Iterable[tuple[Tensor, Sequence[int]]]) -> None:
        """Marks dimensions of tensors, where needed."""
        tensors = list(tensors)
        sizes = [tensor.shape[d] for tensor, dims in tensors for d in dims]
        if self.first is None:
            self.first = sizes
        self.free = self.free or sizes != self.first
        if self.free:
            mark(tensors)


def mark(tensors: Iterable[tuple[Tensor, Sequence[int]]]) -> None:
    """Tells torch.compile that these sizes vary. 0 and 1 always are constants to it."""
    for tensor, dims in tensors:
        for dim in dims:
            if tensor.shape[dim] > 1:
                torch._dynamo.maybe_mark_dynamic(tensor, dim)


class CompiledMethod:
    """Takes the place of a method of a module, which it has compiled.

    Like ``nn.Module.compile``, but for any method: copies and pickles of the module have the
    method itself again.

    Args:
        module, name: whose method.
        options: of torch.compile.
        prepare: from the arguments to those that are compiled, called as
            ``prepare(sizes, *arguments)``.
        compiled: what is compiled, by default the method; called with what ``prepare`` gives.
        only_in_training: while the module is in evaluation mode, the method runs as it is.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        options: dict[str, Any],
        *,
        prepare: Callable[..., tuple],
        compiled: Callable | None = None,
        only_in_training: bool = False,
    ) -> None:
        self.module = module
        self.name = name
        self.method = getattr(module, name)
        self.compiled = torch.compile(compiled or self.method, **options)
        self.prepare = prepare
        self.only_in_training = only_in_training
        self.sizes = FreeSizes()

    def __call__(self, *arguments):
        if self.only_in_training and not self.module.training:
            return self.method(*arguments)
        # An error inside a graph (NonFiniteCostError) must not leave gradients switched off.
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            return self.compiled(*self.prepare(self.sizes, *arguments))

    def __reduce__(self) -> tuple:
        return getattr, (self.module, self.name)


def _options(
    model: nn.Module, key: str, backend: str | Callable | None, fullgraph: bool
) -> dict[str, Any]:
    backend = backend or BACKEND
    if backend == "inductor":
        check_compiler(key, next(model.parameters()).device)
    return {"backend": backend, "fullgraph": fullgraph}


def _compile_network(model: nn.Module, options: dict[str, Any], **when: bool) -> None:
    if hasattr(model, "predictions"):
        predictions = model.predictions
        model.predictions = CompiledMethod(
            model,
            "predictions",
            options,
            prepare=_in_cells,
            compiled=lambda cells: predictions(_from_cells(cells)),
            **when,
        )
        return
    # Another meta architecture, whose two halves are known by their names.
    for name in ("backbone", "sem_seg_head"):
        if hasattr(model, name):
            getattr(model, name).compile(**options)


def _in_cells(sizes: FreeSizes, images: Tensor) -> tuple[Tensor]:
    """[B, 3, H, W] as [B, 3, H/32, 32, W/32, 32] without a copy; other sizes stay as they are."""
    # .data: no view of another tensor, whose sizes the graph would want to know, too.
    if images.shape[2] % CELL or images.shape[3] % CELL:
        images = images.data
        sizes([(images, (0, 2, 3))])
        return (images,)
    cells = images.unflatten(3, (-1, CELL)).unflatten(2, (-1, CELL)).data
    sizes([(cells, (0, 2, 4))])
    return (cells,)


def _from_cells(cells: Tensor) -> Tensor:
    return cells.flatten(4).flatten(2, 3) if cells.dim() == 6 else cells


def _tensors_of_criterion(
    sizes: FreeSizes, layers: list[dict], targets: PackedTargets, num_masks: float | Tensor
) -> tuple:
    logits = layers[0]["pred_logits"]
    targets.complete(logits.shape[1])
    maps = [(targets.masks, (1, 2))]
    maps += [(target["sem_seg"], (0, 1)) for target in targets if "sem_seg" in target]
    for layer in layers:
        if isinstance(layer, MaskPredictions):
            maps.append((layer.mask_features, (2, 3)))
        else:
            maps.append((layer["pred_masks"], (2, 3)))
        if "semantic" in layer:
            maps += [(m, (2, 3)) for m in layer["semantic"]["aux"].values()]
    sizes(maps)
    # Numbers of segments differ from step to step, so they are free from the first.
    mark((t, (0,)) for t in (targets.labels, targets.image, targets.masks, targets.room))
    if not isinstance(num_masks, Tensor):  # a number would be a constant of the graph
        num_masks = torch.full((), num_masks, device=logits.device)
    return layers, targets, num_masks


def _why_not(criterion: nn.Module) -> str:
    """Why a criterion does not compile; empty if it does."""
    if not hasattr(criterion, "losses_of"):
        return f"{type(criterion).__name__} has no losses_of"
    if not isinstance(criterion.matcher, HungarianMatcher):
        return f"{type(criterion.matcher).__name__} is no HungarianMatcher"
    if not matches_layers_together(criterion.matcher):
        return f"{type(criterion.matcher).__name__}.forward is not that of HungarianMatcher"
    for name in criterion.losses:
        if not getattr(criterion.loss_functions.get(name), "compiles", True):
            return f"loss {name!r} chooses masks on the host"
    return ""
