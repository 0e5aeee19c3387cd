"""Panoptic segmentation with large-scale jitter (Mask2Former's COCO recipe)."""

from typing import Any

from detectron2.structures import Boxes

from .augmentations import large_scale_jitter
from .base import LargeScaleJitterMapper
from .lazy_augmentation import augment
from .masks import equality_masks, make_instances, number_segments, tight_boxes
from .reading import read_panoptic_ids

build_transform_gen = large_scale_jitter  # the published name


class COCOPanopticNewBaselineDatasetMapper(LargeScaleJitterMapper):
    """``INPUT.DATASET_MAPPER_NAME: coco_panoptic_lsj``.

    Adds ``image`` (uint8 [3, S, S]) and, if the record names a panoptic map, ``instances`` with
    ``gt_classes``, ``gt_masks`` (bool [N, S, S]) and tight ``gt_boxes`` of the segments that are no
    crowd. A segment that was cut away keeps an empty mask and a box of zeros.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps one record."""
        record, image = self._start(dataset_dict)
        view = augment(self.tfm_gens, image)
        record["image"] = view.image_tensor()
        if not self.is_train:
            record.pop("annotations", None)
            return record
        if "pan_seg_file_name" in record:
            ids = read_panoptic_ids(record.pop("pan_seg_file_name"), image.shape[:2])
            segments = [s for s in record["segments_info"] if not s.get("iscrowd", 0)]
            numbered, numbers = number_segments(ids, [s["id"] for s in segments])
            masks = equality_masks(view.segments(numbered), numbers)
            instances = make_instances(view.shape, [s["category_id"] for s in segments], masks)
            instances.gt_boxes = Boxes(tight_boxes(masks))
            record["instances"] = instances
        return record
