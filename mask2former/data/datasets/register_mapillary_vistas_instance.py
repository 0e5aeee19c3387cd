"""Mapillary Vistas v1.2 instances: the 37 labels whose instances are told apart.

Mask2Former has an evaluator for this set but neither a registration nor a script. The file is made
by datasets/prepare_mapillary_vistas_ins_seg.py; category ids are those of the panoptic set, with
gaps, and contiguous ids number the 37.
"""

import os

from ..catalogs import load_table
from .declare import instance_classes, register_instances
from .folders import dataset_root, mapillary_folder


def register_all_mapillary_vistas_instance(root: str) -> None:
    """Registers ``mapillary_vistas_instance_seg_{train,val}`` under ``root``."""
    classes = instance_classes(r for r in load_table("mapillary_panoptic") if r["isthing"])
    folder = mapillary_folder(root)
    for split, long_name in (("train", "training"), ("val", "validation")):
        register_instances(
            f"mapillary_vistas_instance_seg_{split}",
            classes,
            image_root=os.path.join(folder, long_name, "images"),
            json_file=os.path.join(folder, f"mapillary_vistas_instance_{split}.json"),
            evaluator_type="mapillary_vistas_instance_seg",
        )


register_all_mapillary_vistas_instance(dataset_root())
