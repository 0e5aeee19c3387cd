"""Names of ``INPUT.DATASET_MAPPER_NAME``."""

import difflib
import logging
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper

from .coco_instance_new_baseline_dataset_mapper import COCOInstanceNewBaselineDatasetMapper
from .coco_panoptic_new_baseline_dataset_mapper import COCOPanopticNewBaselineDatasetMapper
from .mask_former_instance_dataset_mapper import MaskFormerInstanceDatasetMapper
from .mask_former_panoptic_dataset_mapper import MaskFormerPanopticDatasetMapper
from .mask_former_panoptic_dataset_mapper_cropsampling import (
    MaskFormerPanopticDatasetMapperCropSampling,
)
from .mask_former_semantic_dataset_mapper import MaskFormerSemanticDatasetMapper
from .safetybarrier_instance_dataset_mapper import SafetyBarrierInstanceDatasetMapper

logger = logging.getLogger(__name__)

Mapper = Callable[[dict[str, Any]], dict[str, Any]]

# name -> class built as ``cls(cfg, True)``. A mapper of your own: add it here before training.
DATASET_MAPPERS: dict[str, Callable[..., Mapper]] = {
    "mask_former_semantic": MaskFormerSemanticDatasetMapper,
    "mask_former_panoptic": MaskFormerPanopticDatasetMapper,
    "mask_former_instance": MaskFormerInstanceDatasetMapper,
    "coco_instance_lsj": COCOInstanceNewBaselineDatasetMapper,
    "coco_panoptic_lsj": COCOPanopticNewBaselineDatasetMapper,
    "mask_former_panoptic_cropsampling": MaskFormerPanopticDatasetMapperCropSampling,
    "safetybarrier_instance_lsj": SafetyBarrierInstanceDatasetMapper,
}


def build_train_mapper(cfg: CfgNode) -> Mapper:
    """The mapper that ``INPUT.DATASET_MAPPER_NAME`` asks for.

    Any name that is not in `DATASET_MAPPERS` means detectron2's own ``DatasetMapper(cfg, True)``,
    as published; a warning says so, and which name is nearest.
    """
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name in DATASET_MAPPERS:
        return DATASET_MAPPERS[name](cfg, True)
    close = difflib.get_close_matches(name.lower(), DATASET_MAPPERS, n=1)
    logger.warning(
        'INPUT.DATASET_MAPPER_NAME "%s" is none of %s: using detectron2\'s DatasetMapper.%s',
        name,
        ", ".join(DATASET_MAPPERS),
        f" Did you mean {close[0]}?" if close else "",
    )
    return DatasetMapper(cfg, True)
