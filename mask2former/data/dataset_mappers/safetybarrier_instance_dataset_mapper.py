"""Instance segmentation for the safety-barrier set: resize and flip."""

from typing import Any

import torch

from detectron2.data import transforms as T
from detectron2.structures import Boxes

from .annotations import rasterise, transformed, transformed_boxes, usable_annotations
from .base import TrainingMapper
from .coco_instance_new_baseline_dataset_mapper import COCOInstanceNewBaselineDatasetMapper
from .lazy_augmentation import augment
from .masks import make_instances

_SHORT_EDGES = (640, 672, 704, 736, 768, 800)
_MAX_SIZE = 1333


class SafetyBarrierInstanceDatasetMapper(COCOInstanceNewBaselineDatasetMapper):
    """``INPUT.DATASET_MAPPER_NAME: safetybarrier_instance_lsj``.

    In spite of its name there is no large-scale jitter and no padding, and no key changes the
    augmentations (INPUT.FORMAT is read). Adds ``image`` (uint8 [3, H, W]) and ``instances`` with
    ``gt_boxes`` (the annotations' boxes, moved and clipped), ``gt_classes`` and ``gt_masks`` (bool
    [N, H, W]) of all annotations that are no crowd. Unlike the published mapper it takes images
    without usable annotations, and any INPUT.MASK_FORMAT.
    """

    def __init__(self, cfg, is_train: bool = True) -> None:
        """
        Args:
            cfg: reads INPUT.FORMAT.

        Raises:
            AssertionError: not training.
        """
        # Not the parent's constructor: it would announce augmentations that are not used.
        if not is_train:
            raise AssertionError(f"{type(self).__name__} should only be used for training!")
        augmentations = [
            T.ResizeShortestEdge(_SHORT_EDGES, max_size=_MAX_SIZE, sample_style="choice"),
            T.RandomFlip(),
        ]
        TrainingMapper.__init__(
            self, is_train, augmentations=augmentations, image_format=cfg.INPUT.FORMAT
        )

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Maps one record.

        Raises:
            ValueError: a segmentation that is neither polygons, RLE nor a 2-D array.
        """
        record, image = self._start(dataset_dict)
        view = augment(self.tfm_gens, image)
        record["image"] = view.image_tensor()
        if "annotations" in record:
            annotations = usable_annotations(record, image.shape[:2])
            stack = rasterise(transformed(annotations, view), view.shape)
            classes = [int(a["category_id"]) for a in annotations]
            instances = make_instances(view.shape, classes, torch.from_numpy(stack.view(bool)))
            instances.gt_boxes = Boxes(torch.from_numpy(transformed_boxes(annotations, view)))
            record["instances"] = instances
        return record
