"""Former address of two registration functions."""

from detectron2._missing import missing_getattr
from detectron2.data.datasets.coco import register_coco_instances
from detectron2.data.datasets.coco_panoptic import register_coco_panoptic_separated

__all__ = ["register_coco_instances", "register_coco_panoptic_separated"]

__getattr__ = missing_getattr(__name__)
