"""Instance segmentation with resize, crop and flip (MaskFormer)."""

from typing import Any

import numpy as np
import torch

from detectron2.config import configurable
from detectron2.structures import Boxes

from .annotations import rasterise, transformed, transformed_boxes, usable_annotations
from .base import PaddingMapper
from .lazy_augmentation import augment
from .masks import IMAGE_PAD_VALUE, make_instances, pad_to


class MaskFormerInstanceDatasetMapper(PaddingMapper):
    """``INPUT.DATASET_MAPPER_NAME: mask_former_instance``.

    Adds ``image`` (uint8 [3, H, W]) and ``instances`` with ``gt_classes`` and ``gt_masks`` (bool
    [N, H, W]) of the annotations that are no crowd. Segmentations may be polygons, RLE or 2-D
    arrays; an object that the crop cut away keeps an empty mask. With ``drop_vanished`` objects
    without pixels, or whose box has at most one left, go (Mask2Former-IBS).
    """

    category_crop = False

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentations: list,
        image_format: str,
        size_divisibility: int,
        drop_vanished: bool = False,
    ) -> None:
        """See `PaddingMapper`; instances know no ignore label."""
        super().__init__(
            is_train,
            augmentations=augmentations,
            image_format=image_format,
            ignore_label=255,
            size_divisibility=size_divisibility,
            drop_vanished=drop_vanished,
        )

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps one record.

        Raises:
            AssertionError: not training, or the record has no ``annotations``, or the first
                annotation has no ``segmentation``.
            ValueError: a segmentation of another kind.
        """
        self._require_training()
        if "annotations" not in dataset_dict:
            raise AssertionError(f"{dataset_dict.get('file_name')}: no 'annotations' in the record")
        annotations = dataset_dict["annotations"]
        if annotations and "segmentation" not in annotations[0]:
            raise AssertionError(
                f"{dataset_dict.get('file_name')}: annotations without 'segmentation' cannot train "
                "masks"
            )
        record, image = self._start(dataset_dict)
        view = augment(self.tfm_gens, image)
        annotations = usable_annotations(record, image.shape[:2])
        if self.drop_vanished:
            areas = Boxes(torch.from_numpy(transformed_boxes(annotations, view))).area()
            annotations = [a for a, area in zip(annotations, areas.tolist()) if area > 1]
        record["image"] = pad_to(view.image_tensor(), self.size_divisibility, IMAGE_PAD_VALUE)
        shape = record["image"].shape[-2:]
        if annotations:
            stack = rasterise(transformed(annotations, view), view.shape)
            if self.drop_vanished:
                kept = np.flatnonzero(stack.any((1, 2)))
                stack, annotations = stack[kept], [annotations[i] for i in kept]
        if annotations:
            masks = pad_to(torch.from_numpy(stack.view(bool)), self.size_divisibility, 0)
        else:
            masks = torch.zeros((0, *shape))
        classes = [int(a["category_id"]) for a in annotations]
        record["instances"] = make_instances(shape, classes, masks)
        return record
