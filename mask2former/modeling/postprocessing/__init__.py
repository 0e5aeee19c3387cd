"""Outputs of the three tasks from class and mask logits."""

from .inference import Settings, segment
from .resize import Frame

__all__ = ["Frame", "Settings", "segment"]
