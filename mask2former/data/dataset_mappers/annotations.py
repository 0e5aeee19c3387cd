"""Carries COCO-style annotations through the augmentations and rasterises them once."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as mask_api

from detectron2.data import detection_utils as utils

from .lazy_augmentation import Augmented, flatten
from .polygons import move_polygons
from .run_lengths import paint

logger = logging.getLogger(__name__)

# COCO's own polygons touch the border and overshoot by roundings; more is worth a word.
_TOLERANCE = 1.0
_reported: set[tuple[str, Any]] = set()

Segmentation = list[np.ndarray] | np.ndarray


def usable_annotations(record: dict[str, Any], shape: tuple[int, int]) -> list[dict[str, Any]]:
    """Takes the annotations out of a record and drops those that cannot be trained on.

    Crowd annotations go silently. One whose polygons lie wholly outside the image goes, and one
    that sticks out stays and will be clipped, each with one warning that names file and annotation.

    Args:
        record: its key ``annotations`` is removed.
        shape: (height, width) of the image as stored.

    Raises:
        ValueError: an annotation's ``segmentation`` is neither polygons, RLE nor a 2-D array, or
            its RLE has another size than the image.
    """
    kept = []
    for position, annotation in enumerate(record.pop("annotations")):
        if annotation.get("iscrowd", 0) != 0:
            continue
        where = f"{record.get('file_name')}, annotation {annotation.get('id', f'#{position}')}"
        segmentation = _parse(annotation.get("segmentation"), shape, where)
        if isinstance(segmentation, list) and not _inside(segmentation, shape, where):
            continue
        kept.append({**annotation, "segmentation": segmentation})
    return kept


def _parse(segmentation: Any, shape: tuple[int, int], where: str) -> Segmentation:
    """Polygons as float64 [N, 2] arrays, RLE and arrays as uint8 [H, W]."""
    if isinstance(segmentation, list):
        odd = next((p for p in segmentation if np.ndim(p) == 1 and len(p) % 2), None)
        if odd is not None:
            raise ValueError(f"{where}: a polygon has {len(odd)} coordinates, an odd number")
        # float64 always: detectron2 transforms in place, and integers would be truncated.
        polygons = [np.array(p, dtype=np.float64).reshape(-1, 2) for p in segmentation]
        return [p for p in polygons if len(p) >= 3]  # fewer points have no area and cannot be cut
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = mask_api.frPyObjects(segmentation, *segmentation["size"])
        segmentation = mask_api.decode(segmentation)
    if isinstance(segmentation, np.ndarray) and segmentation.ndim == 2:
        if segmentation.shape != tuple(shape):
            raise ValueError(
                f"{where}: mask of {segmentation.shape[1]}x{segmentation.shape[0]} on an image of "
                f"{shape[1]}x{shape[0]} (width x height)"
            )
        return segmentation.astype(np.uint8, copy=False)
    raise ValueError(
        f"{where}: cannot use a segmentation of type {type(segmentation).__name__}; polygons "
        "(list of lists), RLE (dict) or a 2-D array are needed"
    )


def _inside(polygons: list[np.ndarray], shape: tuple[int, int], where: str) -> bool:
    """False if no polygon touches the image; warns once if any sticks out of it."""
    if not polygons:
        return True
    points = np.concatenate(polygons)
    low, high = points.min(0), points.max(0)
    limit = np.array([shape[1], shape[0]], dtype=np.float64)
    if (high < 0).any() or (low > limit).any():
        _warn_once(where, "dropped: it lies outside its image")
        return False
    if (low < -_TOLERANCE).any() or (high > limit + _TOLERANCE).any():
        _warn_once(where, "clipped: it reaches outside its image")
    return True


def _warn_once(where: str, what: str) -> None:
    if (where, what) not in _reported:
        _reported.add((where, what))
        logger.warning("%s was %s.", where, what)


def transformed(annotations: list[dict[str, Any]], view: Augmented) -> list[Segmentation]:
    """Each annotation's polygons, or its mask, as the augmented image shows it."""
    segmentations = [a["segmentation"] for a in annotations]
    outlines = [s for s in segmentations if isinstance(s, list)]
    moved = iter(move_polygons(flatten(view.transforms), outlines))
    return [next(moved) if isinstance(s, list) else view.mask(s) for s in segmentations]


def transformed_boxes(annotations: list[dict[str, Any]], view: Augmented) -> np.ndarray:
    """The annotations' boxes in the augmented image, clipped to it: XYXY, float32 [N, 4]."""
    boxes = np.zeros((len(annotations), 4), np.float32)
    for box, annotation in zip(boxes, annotations):
        plain = {key: annotation[key] for key in ("bbox", "bbox_mode")}
        moved = utils.transform_instance_annotations(plain, view.transforms, view.shape)
        box[:] = moved["bbox"]
    return boxes


def rasterise(segmentations: Sequence[Segmentation], shape: tuple[int, int]) -> np.ndarray:
    """Masks of 0 and 1, uint8 [N, H, W]; an annotation without polygons gives an empty one."""
    height, width = shape
    stack = np.zeros((len(segmentations), height, width), np.uint8)
    for plane, segmentation in zip(stack, segmentations):
        if not isinstance(segmentation, list):
            plane[:] = segmentation
        elif segmentation:
            flat = [np.asarray(p).reshape(-1) for p in segmentation]
            paint(mask_api.merge(mask_api.frPyObjects(flat, height, width)), plane)
    return stack
