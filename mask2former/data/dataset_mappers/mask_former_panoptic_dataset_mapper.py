"""Panoptic segmentation: one mask a segment, things and stuff alike (MaskFormer)."""

from typing import Any

import torch

from .base import PaddingMapper
from .lazy_augmentation import augment
from .masks import (
    IMAGE_PAD_VALUE,
    equality_masks,
    make_instances,
    more_than_one_pixel,
    number_segments,
    pad_labels,
    pad_to,
)
from .reading import read_label_map, read_panoptic_ids


class MaskFormerPanopticDatasetMapper(PaddingMapper):
    """``INPUT.DATASET_MAPPER_NAME: mask_former_panoptic``.

    Adds ``image`` (uint8 [3, H, W]), ``sem_seg`` (int64 [H, W], if the record names a map) and
    ``instances``: ``gt_classes`` and ``gt_masks`` (bool [N, H, W]) of the segments that are no
    crowd, in their order. A segment that the crop cut away keeps an empty mask; with
    ``drop_vanished`` segments with at most one visible pixel go (Mask2Former-IBS). Made from a
    config or by the keywords of `PaddingMapper`.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps one record.

        Raises:
            AssertionError: not training.
            ValueError: no ``pan_seg_file_name``, or ``annotations`` in the record.
        """
        self._require_labels(dataset_dict, "pan_seg_file_name", "panoptic")
        return self._map(dataset_dict)

    def _map(self, dataset_dict: dict[str, Any], **hints: Any) -> dict[str, Any]:
        """Reads, augments and collects; ``hints`` are what augmentations ask for, see `augment`."""
        record, image = self._start(dataset_dict)
        side = self.size_divisibility
        labels = None
        if "sem_seg_file_name" in record:
            labels = read_label_map(record.pop("sem_seg_file_name"), image.shape[:2])
        ids = read_panoptic_ids(record.pop("pan_seg_file_name"), image.shape[:2])
        view = augment(self.tfm_gens, image, labels, **hints)

        record["image"] = pad_to(view.image_tensor(), side, IMAGE_PAD_VALUE)
        if labels is not None:
            sem_seg = pad_labels(view.label_map(labels), side, self.ignore_label)
            record["sem_seg"] = sem_seg.long()
        segments = [s for s in record["segments_info"] if not s.get("iscrowd", 0)]
        numbered, numbers = number_segments(ids, [s["id"] for s in segments])
        numbered = pad_to(torch.from_numpy(view.segments(numbered)), side, 0).numpy()
        classes = [s["category_id"] for s in segments]
        if self.drop_vanished:
            kept = more_than_one_pixel(numbered, numbers)
            numbers, classes = [numbers[i] for i in kept], [classes[i] for i in kept]
        masks = equality_masks(numbered, numbers)
        record["instances"] = make_instances(numbered.shape, classes, masks)
        return record
