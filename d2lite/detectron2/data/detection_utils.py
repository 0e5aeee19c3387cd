"""Steps that dataset mappers are made of: read, check, transform and collect annotations.

Usually imported as ``from detectron2.data import detection_utils as utils``.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from detectron2._missing import missing_getattr
from detectron2.data import transforms as T
from detectron2.data._annotations import (
    annotations_to_instances,
    annotations_to_instances_rotated,
    filter_empty_instances,
    transform_instance_annotations,
    transform_keypoint_annotations,
    transform_proposals,
)
from detectron2.data._image_io import (
    SizeMismatchError,
    check_image_size,
    convert_image_to_rgb,
    convert_PIL_to_numpy,
    read_image,
)
from detectron2.data.catalog import MetadataCatalog
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    Instances,
    Keypoints,
    PolygonMasks,
    RotatedBoxes,
    polygons_to_bitmask,
)
from detectron2.utils.file_io import PathManager

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "Instances",
    "Keypoints",
    "MetadataCatalog",
    "PathManager",
    "PolygonMasks",
    "RotatedBoxes",
    "SizeMismatchError",
    "annotations_to_instances",
    "annotations_to_instances_rotated",
    "build_augmentation",
    "build_transform_gen",
    "check_image_size",
    "check_metadata_consistency",
    "convert_PIL_to_numpy",
    "convert_image_to_rgb",
    "create_keypoint_hflip_indices",
    "filter_empty_instances",
    "gen_crop_transform_with_instance",
    "get_bbox",
    "polygons_to_bitmask",
    "read_image",
    "transform_instance_annotations",
    "transform_keypoint_annotations",
    "transform_proposals",
]


def get_bbox(annotation: dict) -> np.ndarray:
    """Box of an annotation, XYXY in pixels, [1, 4]."""
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return np.asarray(box).reshape(1, 4)


def create_keypoint_hflip_indices(dataset_names: str | Iterable[str]) -> list[int]:
    """Where each keypoint is found after a horizontal flip: left and right change places.

    Args:
        dataset_names: with ``keypoint_names`` and ``keypoint_flip_map`` in their metadata, equal
            for all.
    """
    names = [dataset_names] if isinstance(dataset_names, str) else list(dataset_names)
    check_metadata_consistency("keypoint_names", names)
    check_metadata_consistency("keypoint_flip_map", names)
    metadata = MetadataCatalog.get(names[0])
    partner = dict(metadata.keypoint_flip_map)
    partner |= {right: left for left, right in partner.items()}
    order = list(metadata.keypoint_names)
    return [order.index(partner.get(name, name)) for name in order]


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """Check that data sets agree on a metadata entry.

    Raises:
        AttributeError: the first of them lacks ``key``.
        ValueError: they differ; names the two.
    """
    if not dataset_names:
        raise AssertionError("check_metadata_consistency needs at least one dataset name")
    first = getattr(MetadataCatalog.get(dataset_names[0]), key)
    for name in dataset_names[1:]:
        other = getattr(MetadataCatalog.get(name), key)
        if other != first:
            logging.getLogger(__name__).error(
                "Metadata '%s' of %s: %s; of %s: %s", key, dataset_names[0], first, name, other
            )
            raise ValueError(
                f"Datasets '{dataset_names[0]}' and '{name}' have different '{key}'; datasets that "
                "are used together must agree on it"
            )


def gen_crop_transform_with_instance(
    crop_size: tuple[int, int], image_size: tuple[int, int], instance: dict
) -> T.CropTransform:
    """A random crop that contains the centre of an instance's box.

    Args:
        crop_size: (h, w) in pixels.
        image_size: (h, w) in pixels.
        instance: annotation with ``bbox`` and ``bbox_mode``.
    """
    x0, y0, x1, y1 = get_bbox(instance)[0]
    center = np.array([(y0 + y1) * 0.5, (x0 + x1) * 0.5])
    if not (center <= image_size).all():
        raise AssertionError("The annotation's box lies outside of the image!")
    room = np.maximum(np.subtract(image_size, crop_size), 0)
    lowest = np.maximum(np.floor(center).astype(int) - crop_size, 0)
    highest = np.minimum(room, np.ceil(center).astype(int))
    top = int(np.random.randint(lowest[0], highest[0] + 1))
    left = int(np.random.randint(lowest[1], highest[1] + 1))
    h, w = image_size
    return T.CropTransform(left, top, int(crop_size[1]), int(crop_size[0]), w, h)


def build_augmentation(cfg: Any, is_train: bool) -> list[T.Augmentation]:
    """The default augmentations: resize the shortest edge; in training, flip.

    Args:
        cfg: reads INPUT.MIN_SIZE_TRAIN, MAX_SIZE_TRAIN, MIN_SIZE_TRAIN_SAMPLING and RANDOM_FLIP, or
            INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST.
        is_train: which of the two.
    """
    if not is_train:
        return [T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, "choice")]
    augmentations: list[T.Augmentation] = [
        T.ResizeShortestEdge(
            cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
        )
    ]
    if cfg.INPUT.RANDOM_FLIP != "none":
        augmentations.append(
            T.RandomFlip(
                horizontal=cfg.INPUT.RANDOM_FLIP == "horizontal",
                vertical=cfg.INPUT.RANDOM_FLIP == "vertical",
            )
        )
    return augmentations


build_transform_gen = build_augmentation

__getattr__ = missing_getattr(__name__)
