"""Evaluators and metrics."""

from .average_precision import coco_average_precision, lvis_average_precision
from .build import EVALUATORS, build_evaluator, register_evaluator
from .cityscapes_evaluation import CityscapesInstanceEvaluator, CityscapesSemSegEvaluator
from .coco_evaluation import COCOEvaluator
from .errors import EvaluationError
from .instance_evaluation import InstanceSegEvaluator
from .lvis_evaluation import LVISEvaluator
from .panoptic_evaluation import COCOPanopticEvaluator
from .panoptic_quality import panoptic_quality, pq_compute
from .sem_seg_evaluation import SemSegEvaluator

__all__ = [
    "EVALUATORS",
    "COCOEvaluator",
    "COCOPanopticEvaluator",
    "CityscapesInstanceEvaluator",
    "CityscapesSemSegEvaluator",
    "EvaluationError",
    "InstanceSegEvaluator",
    "LVISEvaluator",
    "SemSegEvaluator",
    "build_evaluator",
    "coco_average_precision",
    "lvis_average_precision",
    "panoptic_quality",
    "pq_compute",
    "register_evaluator",
]
