"""Saving and loading of models and training state."""

from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer

from detectron2._missing import missing_getattr
from detectron2.checkpoint import catalog as _catalog  # registers catalog:// addresses
from detectron2.checkpoint.detection_checkpoint import DetectionCheckpointer

__all__ = ["Checkpointer", "DetectionCheckpointer", "PeriodicCheckpointer"]

del _catalog
__getattr__ = missing_getattr(__name__)
