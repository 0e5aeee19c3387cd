"""Decodes COCO run lengths into a mask by painting only its bounding box.

pycocotools visits every pixel of the plane, column by column; most objects cover a small part of
it. Polygons are still rasterised by pycocotools itself, so the pixels are its own.
"""

from typing import Any

import cv2
import numpy as np

# The coding (maskApi.c, rleToString): 5 bits a character, above 48, the sixth says "more follows",
# the highest of a number's last five is its sign; from the fourth run on, numbers are differences
# to the run before last.
_OFFSET, _PAYLOAD, _MORE, _SIGN = 48, 0x1F, 0x20, 0x10


def run_lengths(counts: bytes) -> np.ndarray:
    """The lengths of alternating runs of 0 and 1, int64 [R], of a compressed COCO mask."""
    codes = np.frombuffer(counts, np.uint8).astype(np.int64) - _OFFSET
    if not len(codes):
        return codes
    last = (codes & _MORE) == 0
    number = np.concatenate([[0], np.cumsum(last)[:-1]])  # which number a character belongs to
    first = np.concatenate([[0], np.flatnonzero(last)[:-1] + 1])
    shift = 5 * (np.arange(len(codes)) - first[number])
    values = np.add.reduceat((codes & _PAYLOAD) << shift, first)
    ends = np.flatnonzero(last)
    negative = (codes[ends] & _SIGN) != 0
    values -= negative.astype(np.int64) << (shift[ends] + 5)
    # Differences: runs 1, 3, 5, ... and 2, 4, 6, ... are running sums; run 0 stands alone.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def paint(rle: dict[str, Any], plane: np.ndarray) -> None:
    """Sets the mask's pixels in a plane of zeros.

    Args:
        rle: compressed COCO mask.
        plane: uint8 [H, W] of the mask's size.
    """
    height = plane.shape[0]
    runs = run_lengths(rle["counts"])
    if len(runs) < 2:
        return  # no pixel is set
    ends = np.cumsum(runs)
    # The columns between the first and the last pixel that is set.
    last = ends[-1] if len(runs) % 2 == 0 else ends[-2]
    left, right = int(ends[0]) // height, -(-int(last) // height)
    starts, stops = ends[:-1:2], ends[1::2]
    columns = np.zeros((right - left, height), np.uint8)
    flat = columns.reshape(-1)
    offset = left * height
    # One run of 1 a column is usual, and few columns: slices beat anything cleverer.
    for start, stop in zip((starts - offset).tolist(), (stops - offset).tolist()):
        flat[start:stop] = 1
    used = np.flatnonzero(columns.any(0))
    if len(used):
        top, bottom = int(used[0]), int(used[-1]) + 1
        plane[top:bottom, left:right] = cv2.transpose(columns[:, top:bottom])
