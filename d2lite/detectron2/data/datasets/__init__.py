"""Data sets in COCO, Cityscapes, LVIS and Pascal VOC format, and the built-in registrations."""

from detectron2._missing import missing_getattr
from detectron2.data.datasets import builtin
from detectron2.data.datasets.coco import (
    convert_to_coco_json,
    load_coco_json,
    load_sem_seg,
    register_coco_instances,
)
from detectron2.data.datasets.coco_panoptic import (
    register_coco_panoptic,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets.lvis import (
    get_lvis_instances_meta,
    load_lvis_json,
    register_lvis_instances,
)
from detectron2.data.datasets.pascal_voc import load_voc_instances, register_pascal_voc

__all__ = [
    "builtin",
    "convert_to_coco_json",
    "get_lvis_instances_meta",
    "load_coco_json",
    "load_lvis_json",
    "load_sem_seg",
    "load_voc_instances",
    "register_coco_instances",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
    "register_lvis_instances",
    "register_pascal_voc",
]

__getattr__ = missing_getattr(__name__)
