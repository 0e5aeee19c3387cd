"""Finds and loads the compiled kernels: plain C libraries, which build_ops.py puts here."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent
# Counted up whenever the C interface changes, here and in csrc: a library left over from an older
# build is refused instead of being called with the wrong arguments.
ABI = 2

_POINTER = ctypes.c_void_p
_SIZES = ctypes.POINTER(ctypes.c_int64)


class MissingLibrary(RuntimeError):
    """There is no usable compiled kernel; the message says why and what to do."""


def library_path(device_type: str) -> Path:
    """Where the kernels for ``"cpu"`` or ``"cuda"`` are looked for."""
    return FOLDER / f"libms_deform_attn_{device_type}.so"


@cache
def load(device_type: str) -> ctypes.CDLL:
    """The loaded library with its C signatures declared.

    Raises:
        MissingLibrary: if it was not built, cannot be loaded, or belongs to another version.
    """
    if device_type not in ("cpu", "cuda"):
        raise MissingLibrary(f"there are no compiled kernels for {device_type} devices")
    path = library_path(device_type)
    remedy = "run `python build_ops.py` in the source folder"
    if device_type == "cuda":
        remedy = "set CUDA_HOME and " + remedy
    if not path.exists():
        raise MissingLibrary(f"{path.name} has not been built; to build it, {remedy}")
    try:
        # torch comes first (imported above): its OpenMP is found and shared by the CPU kernels.
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise MissingLibrary(f"{path} cannot be loaded ({error}); {remedy}") from error
    version = getattr(library, f"mask2former_{device_type}_abi", lambda: None)()
    if version != ABI:
        raise MissingLibrary(f"{path} is of another version ({version}, not {ABI}); {remedy}")
    _declare(library, device_type)
    return library


def _declare(library: ctypes.CDLL, device_type: str) -> None:
    number = ctypes.c_int
    if device_type == "cpu":  # dtype, sizes, strides | tensors | threads or splits, threads
        first, result = [number, _SIZES, _SIZES], None
        last_forward, last_backward = [number], [number, number]
    else:  # dtype, sizes | tensors | device, stream
        first, result = [number, _SIZES], number
        last_forward = last_backward = [number, _POINTER]
        library.mask2former_cuda_error.argtypes = [number]
        library.mask2former_cuda_error.restype = ctypes.c_char_p
    for name, tensors, last in (("forward", 4, last_forward), ("backward", 7, last_backward)):
        function = getattr(library, f"ms_deform_attn_{device_type}_{name}")
        function.argtypes = [*first, *[_POINTER] * tensors, *last]
        function.restype = result


# How the C interface numbers them.
DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
