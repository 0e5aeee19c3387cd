"""Semantic segmentation as mask classification: one mask a class present (MaskFormer)."""

from typing import Any

from detectron2.config import configurable

from .base import PaddingMapper
from .lazy_augmentation import augment
from .masks import (
    IMAGE_PAD_VALUE,
    equality_masks,
    make_instances,
    pad_labels,
    pad_to,
    present_labels,
)
from .reading import read_label_map


class MaskFormerSemanticDatasetMapper(PaddingMapper):
    """``INPUT.DATASET_MAPPER_NAME: mask_former_semantic``.

    Adds ``image`` (uint8 [3, H, W]), ``sem_seg`` (int64 [H, W]) and ``instances`` with
    ``gt_classes`` (the labels present, ascending) and ``gt_masks`` (bool [N, H, W]).
    """

    has_segments = False

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        augmentations: list,
        image_format: str,
        ignore_label: int,
        size_divisibility: int,
    ) -> None:
        """See `PaddingMapper`."""
        super().__init__(
            is_train,
            augmentations=augmentations,
            image_format=image_format,
            ignore_label=ignore_label,
            size_divisibility=size_divisibility,
        )

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps one record.

        Raises:
            AssertionError: not training.
            ValueError: no ``sem_seg_file_name``, or ``annotations`` in the record.
        """
        self._require_labels(dataset_dict, "sem_seg_file_name", "semantic")
        record, image = self._start(dataset_dict)
        labels = read_label_map(record.pop("sem_seg_file_name"), image.shape[:2])
        view = augment(self.tfm_gens, image, labels)

        side = self.size_divisibility
        compact = pad_labels(view.label_map(labels), side, self.ignore_label)
        present = present_labels(compact.numpy(), self.ignore_label)
        record["image"] = pad_to(view.image_tensor(), side, IMAGE_PAD_VALUE)
        record["sem_seg"] = compact.long()
        masks = equality_masks(compact.numpy(), present)
        record["instances"] = make_instances(compact.shape, present, masks)
        return record
