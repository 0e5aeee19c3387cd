"""Outputs of the three tasks from class and mask logits."""

from .inference import Settings, segment
from .label_scores import LabelScores
from .resize import Frame

__all__ = ["Frame", "LabelScores", "Settings", "segment"]
