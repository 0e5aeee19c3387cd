"""COCO's encodings of a label map: RGB ids, polygons and run lengths."""

from typing import Any

import cv2
import numpy as np
from pycocotools import mask as mask_api


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Panoptic ids to the PNG coding id = R + 256 G + 65536 B; uint8 [H, W, 3]."""
    ids = ids.astype(np.uint32)
    return np.stack([ids & 255, (ids >> 8) & 255, (ids >> 16) & 255], axis=-1).astype(np.uint8)


def bounding_box(mask: np.ndarray) -> list[int]:
    """Tight [x, y, width, height] of a bool mask with at least one pixel."""
    xs, ys = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return [int(xs[0]), int(ys[0]), int(xs[-1] - xs[0] + 1), int(ys[-1] - ys[0] + 1)]


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Compressed run lengths of a bool mask ``[H, W]``, JSON-ready."""
    rle = mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(v) for v in rle["size"]], "counts": rle["counts"].decode("ascii")}


def encode_mask(mask: np.ndarray) -> list[list[float]] | dict[str, Any]:
    """Polygons along pixel borders, which rasterise back to exactly this mask.

    A polygon cannot have a hole, so masks with holes become run lengths, as do the rare masks
    (pixels touching by a corner) that polygons would not reproduce exactly.
    """
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if (hierarchy[0, :, 3] >= 0).any():  # a contour with a parent is a hole
        return encode_rle(mask)
    # A pixel i covers 2i and 2i+1 of the doubled mask: its outer border lies at i or i+1.
    # Floats, because detectron2 transforms polygons in place and integers would be truncated.
    polygons = [((c[:, 0] + 1) // 2).ravel().astype(float).tolist() for c in contours]
    back = mask_api.merge(mask_api.frPyObjects(polygons, *mask.shape))
    return polygons if (mask_api.decode(back) == mask).all() else encode_rle(mask)
