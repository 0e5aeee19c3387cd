"""Training mappers: a dataset record in, a model input out.

Every mapper is a short declaration over shared steps: `reading` (files), `augmentations` (the
published lists), `crop_sampling` (an image and a segment of a class, and a crop around it),
`lazy_augmentation` (pixels are touched once, after all is drawn), `masks` and `annotations` (ground
truth), `base` (what all have in common), `registry` (names of ``INPUT.DATASET_MAPPER_NAME``).
"""

from .coco_instance_new_baseline_dataset_mapper import COCOInstanceNewBaselineDatasetMapper
from .coco_panoptic_new_baseline_dataset_mapper import COCOPanopticNewBaselineDatasetMapper
from .mask_former_instance_dataset_mapper import MaskFormerInstanceDatasetMapper
from .mask_former_panoptic_dataset_mapper import MaskFormerPanopticDatasetMapper
from .mask_former_panoptic_dataset_mapper_cropsampling import (
    MaskFormerPanopticDatasetMapperCropSampling,
)
from .mask_former_semantic_dataset_mapper import MaskFormerSemanticDatasetMapper
from .reading import ImageDecodeError
from .registry import DATASET_MAPPERS, build_train_mapper
from .safetybarrier_instance_dataset_mapper import SafetyBarrierInstanceDatasetMapper

__all__ = [
    "DATASET_MAPPERS",
    "COCOInstanceNewBaselineDatasetMapper",
    "COCOPanopticNewBaselineDatasetMapper",
    "ImageDecodeError",
    "MaskFormerInstanceDatasetMapper",
    "MaskFormerPanopticDatasetMapper",
    "MaskFormerPanopticDatasetMapperCropSampling",
    "MaskFormerSemanticDatasetMapper",
    "SafetyBarrierInstanceDatasetMapper",
    "build_train_mapper",
]
