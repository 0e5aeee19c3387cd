"""Instance segmentation with large-scale jitter (Mask2Former's COCO recipe)."""

from typing import Any

import numpy as np
import torch

from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances

from .annotations import Segmentation, rasterise, transformed, usable_annotations
from .augmentations import large_scale_jitter
from .base import LargeScaleJitterMapper
from .lazy_augmentation import Augmented, augment, flatten
from .masks import make_instances

build_transform_gen = large_scale_jitter  # the published name
_MIN_BOX_SIDE = 1e-5  # detectron2's filter_empty_instances


class COCOInstanceNewBaselineDatasetMapper(LargeScaleJitterMapper):
    """``INPUT.DATASET_MAPPER_NAME: coco_instance_lsj``.

    Adds ``image`` (uint8 [3, S, S]), ``padding_mask`` (bool [S, S]; no model reads it) and, if the
    record has annotations, ``instances`` with ``gt_boxes``, ``gt_classes`` and ``gt_masks`` (uint8
    [N, S, S] of 0 and 1). Objects without area after the crop are removed. Unlike the published
    mapper it takes RLE and array masks as well as polygons, and images without usable objects.
    """

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps one record.

        Raises:
            ValueError: a segmentation of another kind.
        """
        record, image = self._start(dataset_dict)
        view = augment(self.tfm_gens, image)
        record["image"] = view.image_tensor()
        record["padding_mask"] = _padding_mask(view)
        if not self.is_train:
            record.pop("annotations", None)
            return record
        if "annotations" in record:
            annotations = usable_annotations(record, image.shape[:2])
            record["instances"] = _make_instances(annotations, view)
        return record


def _make_instances(annotations: list[dict[str, Any]], view: Augmented) -> Instances:
    """Instances of what the crop left, with boxes around the polygons (or the mask)."""
    boxes, classes, kept = [], [], []
    for annotation, segmentation in zip(annotations, transformed(annotations, view)):
        box = _bounding_box(segmentation)
        if box is not None:
            boxes.append(box)
            classes.append(int(annotation["category_id"]))
            kept.append(segmentation)
    masks = torch.from_numpy(rasterise(kept, view.shape))
    instances = make_instances(view.shape, classes, masks)
    instances.gt_boxes = Boxes(torch.from_numpy(np.array(boxes, np.float32).reshape(-1, 4)))
    return instances


def _bounding_box(segmentation: Segmentation) -> np.ndarray | None:
    """float32 XYXY around polygons or a mask; None if it has no extent."""
    if isinstance(segmentation, list):
        if not segmentation:
            return None
        points = np.concatenate(segmentation).astype(np.float32)
        box = np.concatenate([points.min(0), points.max(0)])
    else:
        columns, rows = np.flatnonzero(segmentation.any(0)), np.flatnonzero(segmentation.any(1))
        if not len(columns):
            return None
        box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    return box if (box[2:] - box[:2] > _MIN_BOX_SIDE).all() else None


def _padding_mask(view: Augmented) -> torch.Tensor:
    """What the published mapper computes: True outside the image if labels are padded with 0.

    Current detectron2 pads them with 255, which makes it False everywhere.
    """
    outside = torch.zeros(view.shape, dtype=torch.bool)
    for step in flatten(view.transforms):
        if isinstance(step, T.PadTransform) and not getattr(step, "seg_pad_value", 0):
            outside[view.shape[0] - step.y1 :] = True
            outside[:, view.shape[1] - step.x1 :] = True
    return outside
