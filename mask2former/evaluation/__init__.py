"""Evaluators and metrics."""

from .build import EVALUATORS, build_evaluator, register_evaluator
from .instance_evaluation import InstanceSegEvaluator
from .panoptic_evaluation import COCOPanopticEvaluator
from .panoptic_quality import panoptic_quality, pq_compute

__all__ = [
    "EVALUATORS",
    "COCOPanopticEvaluator",
    "InstanceSegEvaluator",
    "build_evaluator",
    "panoptic_quality",
    "pq_compute",
    "register_evaluator",
]
