"""Reading checkpoint files without running anything that they contain.

A pickle is a program. Both readers below admit tensors, arrays, numbers, strings and plain
containers only; everything else is refused by name before it is even imported.
"""

from __future__ import annotations

import _codecs
import collections
import io
import pickle
import re
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

_CONTAINERS: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytearray"): bytearray,
    ("builtins", "complex"): complex,
    ("builtins", "slice"): slice,
}


class _Refused(pickle.UnpicklingError):
    """Carries the name of what is not allowed."""


def _encode_latin1(text: str, encoding: str = "latin1", *_: Any) -> bytes:
    # How protocol 2 writes bytes under Python 3. Other codecs have no business in a checkpoint.
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"text in the codec {encoding!r}")
    return text.encode("latin1")


def _load_storage(data: bytes) -> Any:
    # torch's own function of this name unpickles ``data`` without any restriction.
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _Refused(
            ", ".join(_named_globals(error)) or f"a tensor that is none: {error}"
        ) from error


def _named_globals(error: pickle.UnpicklingError) -> list[str]:
    """What torch's safe reader refused, from its message."""
    return re.findall(r"GLOBAL ([\w.]+)", str(error))


def _numpy_globals() -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }
    array = np.zeros(1)
    reconstruct = array.__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    frombuffer = array.__reduce_ex__(5)[0]
    # numpy 2 renamed numpy.core; files hold either name, whatever wrote them
    for core in ("numpy.core", "numpy._core"):
        found[(f"{core}.multiarray", "_reconstruct")] = reconstruct
        found[(f"{core}.multiarray", "scalar")] = scalar
        found[(f"{core}.numeric", "_frombuffer")] = frombuffer
    return found


def _torch_globals() -> dict[tuple[str, str], Any]:
    found: dict[tuple[str, str], Any] = {
        ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
        ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
        ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        ("torch.storage", "_load_from_bytes"): _load_storage,
        ("torch", "Size"): torch.Size,
        ("torch", "device"): torch.device,
    }
    for name in dir(torch):
        value = getattr(torch, name)
        if isinstance(value, torch.dtype):
            found[("torch", name)] = value
    return found


_ALLOWED = {
    **_CONTAINERS,
    **_numpy_globals(),
    **_torch_globals(),
    ("_codecs", "encode"): _encode_latin1,
}
# What torch's own weights_only reader has to be told beyond its defaults.
_EXTRA_FOR_TORCH = [
    # with their names, so that files of either numpy are read by either numpy
    *[(value, f"{module}.{name}") for (module, name), value in _numpy_globals().items()],
    *[getattr(np.dtypes, name) for name in np.dtypes.__all__],
    _codecs.encode,
]


class SafeUnpickler(pickle.Unpickler):
    """An unpickler that knows arrays, tensors and plain containers."""

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        found = _ALLOWED.get((module, name))
        if found is None and module == "numpy.dtypes" and name in np.dtypes.__all__:
            found = getattr(np.dtypes, name)
        if found is None:
            raise _Refused(f"{module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("a reference to an object outside the file")


# What pickle raises on damaged input, depending on where it breaks off.
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    TypeError,
    UnicodeDecodeError,
    OverflowError,
)


def load_pickle(filename: str | Path, stream: IO[bytes]) -> Any:
    """Read a ``.pkl`` checkpoint (Python 2 ones too).

    Args:
        filename: for messages.

    Raises:
        pickle.UnpicklingError: the file holds something else than arrays, tensors and plain
            containers; says what, and how to convert the file.
        ValueError: the file is damaged or no pickle.
    """
    try:
        return SafeUnpickler(stream, encoding="latin1").load()
    except _Refused as error:
        raise pickle.UnpicklingError(_refusal(filename, str(error), "pickle")) from error
    except _DAMAGE as error:
        raise ValueError(f"Checkpoint {filename} is damaged or no pickle: {error!r}") from error


def load_torch(filename: str | Path) -> Any:
    """Read a file of ``torch.save`` onto the CPU.

    Raises:
        pickle.UnpicklingError: the file holds something else than tensors, arrays and plain
            containers; says what, and how to convert the file.
        ValueError: the file is damaged or no checkpoint.
    """
    try:
        with torch.serialization.safe_globals(_EXTRA_FOR_TORCH):
            return torch.load(filename, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = _named_globals(error)
        if not refused and not _looks_like_checkpoint(filename):
            raise ValueError(f"{filename} is no checkpoint written by torch.save") from error
        what = refused[0] if refused else f"something unknown to torch's safe reader ({error})"
        raise pickle.UnpicklingError(_refusal(filename, what, "torch")) from error
    except (RuntimeError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"Checkpoint {filename} is damaged: {reason}") from error


def _looks_like_checkpoint(filename: str | Path) -> bool:
    with open(filename, "rb") as stream:
        start = stream.read(4)
    return start[:2] == b"PK" or start[:1] == b"\x80"  # zip, or pickle protocol 2 and later


def _refusal(filename: str | Path, what: str, kind: str) -> str:
    path = str(filename)
    if kind == "torch":
        load = f"d = torch.load({path!r}, map_location='cpu', weights_only=False)"
    else:
        load = f"import pickle; d = pickle.load(open({path!r}, 'rb'), encoding='latin1')"
    keep = "('model', '__author__', 'matching_heuristics')"
    save = f"torch.save({{k: d[k] for k in {keep} if k in d}} or {{'model': d}}, 'converted.pth')"
    return (
        f"Checkpoint {filename} is refused: it contains {what}, and only tensors, arrays, numbers, "
        "strings and plain containers are loaded, because anything else can run code. If you "
        "trust its origin, keep the weights alone and use the new file:\n"
        f'    python -c "import torch; {load}; {save}"'
    )
