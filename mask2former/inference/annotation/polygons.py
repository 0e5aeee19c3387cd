"""Masks as polygons: outlines on pixel edges, simplified by a given error, holes included."""

from collections.abc import Sequence

import cv2
import numpy as np
import pycocotools.mask as mask_util

# Outlines run through pixel centres; of an enlarged mask they run nearly along pixel edges.
_ENLARGE = 4
_LARGE = 1 << 21  # pixels of a box above which a mask is enlarged less


def mask_to_polygons(
    mask: np.ndarray, tolerance: float = 1.0, least_part: float = 0.0
) -> list[np.ndarray]:
    """Outlines of a mask's parts.

    CVAT's polygons have no holes: a hole is joined to the outline by a cut of no width, which fills
    correctly in CVAT, OpenCV and pycocotools.

    Args:
        mask: [H, W], non-zero is foreground.
        tolerance: largest distance in pixels between an outline and its simplified form; 0 keeps
            every corner.
        least_part: parts of less than this share of the largest part's area are left out: specks
            that somebody would have to delete one by one.

    Returns:
        one float64 array [N, 2] of x, y a part, larger parts first; coordinates are continuous:
        pixel (i, j) covers [j, j + 1] x [i, i + 1]. Parts of which less than a triangle remains
        are left out; where that is all of them, the largest part stays as it is.
    """
    mask = np.ascontiguousarray(mask != 0, dtype=np.uint8)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return []
    top, left = rows[0], columns[0]
    box = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    factor = _ENLARGE if box.size <= _LARGE else 1 if box.size > 8 * _LARGE else 2
    enlarged = box.repeat(factor, axis=0).repeat(factor, axis=1)
    outlines, hierarchy = cv2.findContours(enlarged, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    hierarchy = hierarchy.reshape(-1, 4)
    polygons = []
    for index, outline in enumerate(outlines):
        if hierarchy[index, 3] >= 0:
            continue  # a hole; comes with its part
        outer = _simplified(outline, tolerance * factor)
        if outer is None:
            continue
        hole = hierarchy[index, 2]
        while hole >= 0:
            inner = _simplified(outlines[hole], tolerance * factor)
            if inner is not None:
                outer = _joined(outer, inner)
            hole = hierarchy[hole, 0]
        polygons.append((outer + 0.5) / factor + (left, top))
    if not polygons and tolerance > 0:
        return mask_to_polygons(mask, 0.0)[:1]
    height, width = mask.shape
    polygons = [p.clip((0, 0), (width, height)) for p in polygons]
    polygons.sort(key=_area, reverse=True)
    return [p for p in polygons if _area(p) >= least_part * _area(polygons[0])]


def polygons_to_mask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The union of polygons as pycocotools fills them, [height, width] bool."""
    mask = np.zeros((height, width), dtype=bool)
    for polygon in polygons:
        coded = mask_util.frPyObjects([polygon.ravel().tolist()], height, width)
        mask |= mask_util.decode(coded)[..., 0].astype(bool)
    return mask


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks of one shape; 0 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def _simplified(outline: np.ndarray, tolerance: float) -> np.ndarray | None:
    if tolerance > 0:
        outline = cv2.approxPolyDP(outline, tolerance, closed=True)
    points = outline.reshape(-1, 2).astype(np.float64)
    return points if len(points) >= 3 else None


def _joined(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """One closed line: along ``outer`` to the point nearest to ``inner``, around it, and on."""
    distance = ((outer[:, None] - inner[None]) ** 2).sum(-1)
    i, j = np.unravel_index(distance.argmin(), distance.shape)
    around = np.concatenate([inner[j:], inner[: j + 1]])
    return np.concatenate([outer[: i + 1], around, outer[i:]])


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2
