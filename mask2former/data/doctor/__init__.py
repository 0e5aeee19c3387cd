"""Looks at people's data: its format, what is wrong with it, and a config to train on it."""

from .detect import Candidate, UnknownFormat, detect
from .findings import Finding, Findings, Severity
from .proposal import TrainingPlan, plan_training
from .survey import Survey, survey

__all__ = [
    "Candidate",
    "Finding",
    "Findings",
    "Severity",
    "Survey",
    "TrainingPlan",
    "UnknownFormat",
    "detect",
    "plan_training",
    "survey",
]
