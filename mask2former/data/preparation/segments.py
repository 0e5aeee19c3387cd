"""Areas, boxes and run lengths of all segments of an id map at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from scipy import ndimage


@dataclass(frozen=True)
class Segment:
    """Attributes: value in the map, pixels, and [x, y, width, height] in pixels, all inclusive."""

    value: int
    area: int
    bbox: list[int]


def describe_segments(ids: np.ndarray) -> list[Segment]:
    """Every value of an id map, ascending.

    Args:
        ids: integer [H, W], values 0..65535 (the tables that are made are as long as the largest).
    """
    counts = np.bincount(ids.ravel())
    values = np.flatnonzero(counts)
    # Numbers from 1 without gaps: SciPy finds the boxes of all in one pass.
    numbers = np.zeros(len(counts), np.int32)
    numbers[values] = np.arange(1, len(values) + 1)
    boxes = ndimage.find_objects(numbers[ids])
    return [
        Segment(
            int(value),
            int(area),
            [int(v) for v in (x.start, y.start, x.stop - x.start, y.stop - y.start)],
        )
        for value, area, (y, x) in zip(values, counts[values], boxes)
    ]


def encode_segments(ids: np.ndarray, wanted: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Compressed run lengths of segments, in one pass over the map.

    The same as ``pycocotools.mask.encode`` of each segment's mask, which takes as many passes as
    there are segments.

    Args:
        ids: integer [H, W].
        wanted: values to encode; those that do not occur are left out.

    Returns:
        value -> ``{"size": [H, W], "counts": str}``.
    """
    flat = ids.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(starts[1:], flat.size)
    values = flat[starts]
    out = {}
    for value in wanted:
        runs = np.flatnonzero(values == value)
        if not runs.size:
            continue
        # Lengths of gaps and runs in turn; a gap after the last run is the rest of the map.
        edges = np.stack([starts[runs], ends[runs]], 1).ravel()
        counts = np.diff(np.concatenate([[0], edges, [flat.size]]))
        if counts[-1] == 0:
            counts = counts[:-1]
        rle = mask_util.frPyObjects(
            {"size": list(ids.shape), "counts": counts.tolist()}, *ids.shape
        )
        out[int(value)] = {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
    return out
