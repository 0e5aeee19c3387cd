"""Finds and loads the compiled kernels: plain C libraries, which build_ops.py puts here."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

import torch

FOLDER = Path(__file__).resolve().parent
# Counted up whenever the C interface changes, here and in csrc: a library left over from an older
# build is refused instead of being called with the wrong arguments.
ABI = 2

MS_DEFORM_ATTN = "ms_deform_attn"
NEIGHBORHOOD_ATTENTION = "neighborhood_attention"
# Post-processing; on the CPU only, elsewhere PyTorch does it.
MASK_STRIPS = "mask_strips"
# Whole layers and 3 x 3 convolutions for inference; on the CPU only.
TOKEN_LAYERS = "token_layers"
WINOGRAD = "winograd"
# Panoptic evaluation; on the CPU only.
ID_MAPS = "id_maps"
# The published algorithm for GPUs: only benchmarks use it (build_ops.py --yardstick).
MS_DEFORM_ATTN_YARDSTICK = "ms_deform_attn_yardstick"

_POINTER = ctypes.c_void_p
_SIZES = ctypes.POINTER(ctypes.c_int64)


class MissingLibrary(RuntimeError):
    """There is no usable compiled kernel; the message says why and what to do."""


def library_path(device_type: str, op: str = MS_DEFORM_ATTN) -> Path:
    """Where the kernels of an op for ``"cpu"`` or ``"cuda"`` are looked for."""
    return FOLDER / f"lib{op}_{device_type}.so"


@cache
def load(device_type: str, op: str = MS_DEFORM_ATTN) -> ctypes.CDLL:
    """The loaded library of an op with its C signatures declared.

    Raises:
        MissingLibrary: if it was not built, cannot be loaded, or belongs to another version.
    """
    if device_type not in ("cpu", "cuda"):
        raise MissingLibrary(f"there are no compiled kernels for {device_type} devices")
    path = library_path(device_type, op)
    remedy = "run `python build_ops.py` in the source folder"
    if op == MS_DEFORM_ATTN_YARDSTICK:
        remedy = "run `python build_ops.py --yardstick` in the source folder"
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
    _declare(library, device_type, op)
    if op in (TOKEN_LAYERS, WINOGRAD):
        torch_blas()
    return library


@cache
def torch_blas() -> ctypes.Array:
    """Addresses of Fortran's ``sgemm`` in the library that torch multiplies matrices with.

    After it, those of MKL's ``sgemm_pack_get_size``, ``sgemm_pack`` and ``sgemm_compute``, or null.

    Raises:
        MissingLibrary: if torch has none that can be called from outside.
    """
    if sys.byteorder != "little":
        raise MissingLibrary("sizes can be handed to sgemm on little-endian machines only")
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    prefix = "" if sys.platform == "win32" else "lib"
    path = Path(torch.__file__).parent / "lib" / f"{prefix}torch_cpu.{suffix}"
    try:
        library = ctypes.CDLL(str(path))
        functions = [library.sgemm_]
    except (OSError, AttributeError) as error:
        raise MissingLibrary(f"this build of torch shows no sgemm ({error})") from error
    packing = [getattr(library, f"sgemm_{name}_", None) for name in _PACKING]
    functions += packing if all(packing) else [None] * len(packing)
    return (_POINTER * 4)(*[ctypes.cast(f, _POINTER).value if f else None for f in functions])


_PACKING = ("pack_get_size", "pack", "compute")
_NUMBER = ctypes.c_int
# (op, device) -> what stands before the tensors, how many tensors forward and backward take, and
# what stands after them forward and backward.
_SIGNATURES = {
    # dtype, sizes, strides | tensors | threads; splits, threads
    (MS_DEFORM_ATTN, "cpu"): ([_NUMBER, _SIZES, _SIZES], 4, 7, [_NUMBER], [_NUMBER, _NUMBER]),
    # dtype, sizes | tensors | device, stream
    (MS_DEFORM_ATTN, "cuda"): ([_NUMBER, _SIZES], 4, 7, [_NUMBER, _POINTER], [_NUMBER, _POINTER]),
    (MS_DEFORM_ATTN_YARDSTICK, "cuda"): (
        [_NUMBER, _SIZES],
        *(4, 7),
        *([_NUMBER, _POINTER], [_NUMBER, _POINTER]),
    ),
    # dtype, sizes, strides, scale | tensors | threads
    (NEIGHBORHOOD_ATTENTION, "cpu"): (
        [_NUMBER, _SIZES, _SIZES, ctypes.c_double],
        *(6, 11),
        *([_NUMBER], [_NUMBER]),
    ),
    # dtype, sizes, scale | tensors | device, stream
    (NEIGHBORHOOD_ATTENTION, "cuda"): (
        [_NUMBER, _SIZES, ctypes.c_double],
        *(6, 11),
        *([_NUMBER, _POINTER], [_NUMBER, _POINTER]),
    ),
}

# Of mask_strips, function by function: sizes | tensors | and what follows them, threads last.
_MASK_STRIPS = {
    "resize": (6, [_NUMBER, _NUMBER]),
    "foreground": (5, [_NUMBER]),
    "winners": (6, [_NUMBER]),
    "best_class": (4, [_NUMBER]),
    "argmax": (2, [_NUMBER]),
}

# Of token_layers and winograd: what stands before the number of threads. The last pointer is
# torch_blas.
_FLOATS = ctypes.POINTER(ctypes.c_float)
_POINTERS = ctypes.POINTER(_POINTER)
_WITH_BLAS = {
    TOKEN_LAYERS: {
        "perceptron": [_SIZES, _FLOATS, _POINTERS, _POINTER, _POINTER],
        "attention": [_SIZES, *[_POINTER] * 5, ctypes.c_float],
        "windows": [_SIZES, _FLOATS, _POINTERS, _POINTER, _POINTER],
        "samples": [_SIZES, _POINTERS, _POINTER, _POINTER, _POINTER, _POINTER],
    },
    WINOGRAD: {"convolution": [_SIZES, *[_POINTER] * 5]},
}


# Of id_maps, function by function: two sizes, then arrays.
_ID_MAPS = {"undo_filters": 2, "joint_areas": 3}


def _declare(library: ctypes.CDLL, device_type: str, op: str) -> None:
    if op == ID_MAPS:
        for name, arrays in _ID_MAPS.items():
            function = getattr(library, f"{op}_{device_type}_{name}")
            function.argtypes = [*[ctypes.c_int64] * 2, *[_POINTER] * arrays]
            function.restype = _NUMBER
        return
    if op == MASK_STRIPS:
        for name, (tensors, last) in _MASK_STRIPS.items():
            function = getattr(library, f"{op}_{device_type}_{name}")
            function.argtypes = [_SIZES, *[_POINTER] * tensors, *last]
            function.restype = None
        return
    if op in (TOKEN_LAYERS, WINOGRAD):
        for name, arguments in _WITH_BLAS[op].items():
            function = getattr(library, f"{op}_{device_type}_{name}")
            function.argtypes = [*arguments, _NUMBER]
            function.restype = None
        return
    first, forward, backward, last_forward, last_backward = _SIGNATURES[op, device_type]
    if device_type == "cuda":
        library.mask2former_cuda_error.argtypes = [_NUMBER]
        library.mask2former_cuda_error.restype = ctypes.c_char_p
    for name, tensors, last in (
        ("forward", forward, last_forward),
        ("backward", backward, last_backward),
    ):
        function = getattr(library, f"{op}_{device_type}_{name}")
        function.argtypes = [*first, *[_POINTER] * tensors, *last]
        function.restype = None if device_type == "cpu" else _NUMBER


# How the C interface numbers them.
DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
