"""Calls the compiled kernels that read and compare maps of segment ids, for panoptic evaluation.

Each does in one pass what takes OpenCV and numpy several; the readable code, which they are tested
against, is where they are called (``mask2former/evaluation``). All run without the GIL.
"""

from __future__ import annotations

import numpy as np

from mask2former.ops.implementation import use_kernel
from mask2former.ops.libraries import ID_MAPS, load

# Maps of segments have tens or hundreds of pairs of labels; with more, a table is no gain.
MOST_PAIRS = 4096


def applies(*maps: np.ndarray) -> bool:
    """Whether the kernels can work on these maps and are wanted: all uint32."""
    return all(ids.dtype == np.uint32 for ids in maps) and use_kernel("cpu", ID_MAPS)


def undo_filters(rows: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """Pixels of a PNG of 8 bit RGB.

    Args:
        rows: uint8, what the PNG compresses: row by row a filter and ``3 * width`` bytes.

    Returns:
        uint32 ``[height, width]``, ``R + 256 G + 256^2 B``; None where a filter does not exist.

    Raises:
        ValueError: there are more or less rows, or of another type.
    """
    if rows.size != height * (1 + 3 * width) or rows.dtype != np.uint8:
        raise ValueError(f"{rows.size} {rows.dtype} are not {height} rows of {width} pixels")
    rows = np.ascontiguousarray(rows)
    ids = np.empty((height, width), np.uint32)
    function = load("cpu", ID_MAPS).id_maps_cpu_undo_filters
    return None if function(height, width, rows.ctypes.data, ids.ctypes.data) else ids


def joint_areas(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """How often each pair of labels meets.

    Args:
        a, b: uint32 maps of one shape.

    Returns:
        int64 ``[3, pairs]``, labels of ``a``, labels of ``b`` and pixels, sorted by pair; None with
        more than :data:`MOST_PAIRS`.

    Raises:
        ValueError: the maps differ in size, or are of another type.
    """
    if a.shape != b.shape or a.dtype != np.uint32 or b.dtype != np.uint32:
        raise ValueError(f"expected two uint32 maps, got {a.dtype}{a.shape}, {b.dtype}{b.shape}")
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    areas = np.empty((3, MOST_PAIRS), np.int64)
    function = load("cpu", ID_MAPS).id_maps_cpu_joint_areas
    pairs = function(a.size, MOST_PAIRS, a.ctypes.data, b.ctypes.data, areas.ctypes.data)
    return None if pairs < 0 else areas[:, :pairs].copy()
