"""Which evaluator runs for which data set: one table, keyed by the metadata's ``evaluator_type``.

A further evaluator is one more entry (or one call of :func:`register_evaluator`).
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from .cityscapes_evaluation import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator
from .coco_evaluation import COCOEvaluator
from .instance_evaluation import InstanceSegEvaluator
from .lvis_evaluation import LVISEvaluator
from .panoptic_evaluation import COCOPanopticEvaluator
from .prediction_dump import PanopticPredictionDump
from .sem_seg_evaluation import SemSegEvaluator

logger = logging.getLogger(__name__)

Condition = Callable[[CfgNode, Metadata], bool]
# (cfg, data set name, output folder) -> evaluator
Factory = Callable[[CfgNode, str, str], DatasetEvaluator]


@dataclass(frozen=True)
class Choice:
    """An evaluator and when it runs."""

    when: Condition
    make: Factory


def _always(cfg: CfgNode, metadata: Metadata) -> bool:
    return True


def _semantic_on(cfg: CfgNode, metadata: Metadata) -> bool:
    if not cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON:
        return False
    if metadata.get("panoptic_json") and not (
        metadata.get("sem_seg_root") or metadata.get("gt_dir")
    ):
        logger.warning("%s has no semantic label maps: mIoU is left out", metadata.name)
        return False
    return True


def _instance_on(cfg: CfgNode, metadata: Metadata) -> bool:
    if not cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON:
        return False
    if metadata.get("json_file", "") is None:  # registered without instances (Mapillary Vistas)
        logger.warning("%s has no instance annotations: AP is left out", metadata.name)
        return False
    return True


def _panoptic_on(cfg: CfgNode, metadata: Metadata) -> bool:
    return cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON


def _skips_images(cfg: CfgNode) -> bool:
    return cfg.TEST.ON_CORRUPT_IMAGE == "skip"


def _sem_seg(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return SemSegEvaluator(
        name, distributed=True, output_dir=folder, boundary_iou=cfg.TEST.BOUNDARY_IOU
    )


def _panoptic(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    # Who trains with intra-batch supervision wants what it is judged by: Acc_th and Prec_th.
    details = cfg.TEST.PANOPTIC_DETAILS or cfg.MODEL.MASK_FORMER.APPLY_IBS
    return COCOPanopticEvaluator(
        name,
        folder,
        allow_missing=_skips_images(cfg),
        details=details,
        fast=cfg.MODEL.FAST,
    )


def _coco(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return COCOEvaluator(name, output_dir=folder, **_instance_options(cfg))


def _instance(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return InstanceSegEvaluator(name, output_dir=folder, **_instance_options(cfg))


def _lvis(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return LVISEvaluator(name, output_dir=folder, **_instance_options(cfg))


def _instance_options(cfg: CfgNode) -> dict:
    return {"engine": cfg.TEST.COCO_EVAL, "only_seen": _skips_images(cfg)}


def _cityscapes_sem_seg(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return CityscapesSemSegEvaluator(name, allow_missing=_skips_images(cfg))


def _cityscapes_instance(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return CityscapesInstanceEvaluator(name, allow_missing=_skips_images(cfg))


# The order within a row is the order of the published code.
EVALUATORS: dict[str, list[Choice]] = {
    "sem_seg": [Choice(_always, _sem_seg)],
    "coco": [Choice(_always, _coco)],
    "coco_panoptic_seg": [
        Choice(_panoptic_on, _panoptic),
        Choice(_instance_on, _coco),
        Choice(_semantic_on, _sem_seg),
    ],
    "ade20k_panoptic_seg": [
        Choice(_always, _sem_seg),
        Choice(_panoptic_on, _panoptic),
        Choice(_instance_on, _instance),
    ],
    "mapillary_vistas_panoptic_seg": [
        Choice(_panoptic_on, _panoptic),
        Choice(_instance_on, _instance),
        Choice(_semantic_on, _sem_seg),
    ],
    "mapillary_vistas_instance_seg": [Choice(_instance_on, _instance)],
    "cityscapes_panoptic_seg": [
        Choice(_panoptic_on, _panoptic),
        Choice(_semantic_on, _cityscapes_sem_seg),
        Choice(_instance_on, _cityscapes_instance),
    ],
    "cityscapes_instance": [Choice(_always, _cityscapes_instance)],
    "cityscapes_sem_seg": [Choice(_always, _cityscapes_sem_seg)],
    "lvis": [Choice(_always, _lvis)],
}


def register_evaluator(evaluator_type: str, make: Factory, when: Condition = _always) -> None:
    """Adds an evaluator for data sets whose metadata has this ``evaluator_type``."""
    EVALUATORS.setdefault(evaluator_type, []).append(Choice(when, make))


def build_evaluator(
    cfg: CfgNode, dataset_name: str, output_folder: str | None = None
) -> DatasetEvaluator:
    """Builds what ``cfg`` asks for on one data set.

    Args:
        output_folder: default ``<OUTPUT_DIR>/inference``.

    Returns:
        One evaluator bare, several as ``DatasetEvaluators``.

    Raises:
        NotImplementedError: no entry fits; ``DefaultTrainer.test`` logs this and goes on.
    """
    folder = output_folder or os.path.join(cfg.OUTPUT_DIR, "inference")
    metadata = MetadataCatalog.get(dataset_name)
    evaluator_type = metadata.get("evaluator_type")
    evaluators = [
        choice.make(cfg, dataset_name, folder)
        for choice in EVALUATORS.get(evaluator_type, [])
        if choice.when(cfg, metadata)
    ]
    if cfg.SAVE_PREDICTIONS and _panoptic_on(cfg, metadata):
        evaluators.append(PanopticPredictionDump(os.path.join(cfg.SAVE_DIR, cfg.SAVE_DIR_NAME)))
    if not evaluators:
        raise NotImplementedError(
            f"No evaluator for the data set {dataset_name} with the type {evaluator_type} and the "
            "switches under MODEL.MASK_FORMER.TEST; known types: " + ", ".join(sorted(EVALUATORS))
        )
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
