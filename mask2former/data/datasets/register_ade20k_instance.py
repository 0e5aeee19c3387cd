"""ADE20K instances: 100 classes in COCO format, made by datasets/prepare_ade20k_ins_seg.py."""

import os

from ..catalogs import load_table
from .declare import instance_classes, register_instances
from .folders import dataset_root


def register_all_ade20k_instance(root: str) -> None:
    """Registers ``ade20k_instance_{train,val}`` under ``root``."""
    classes = instance_classes(load_table("ade20k_instance"))
    folder = os.path.join(root, "ADEChallengeData2016")
    for split, long_name in (("train", "training"), ("val", "validation")):
        register_instances(
            f"ade20k_instance_{split}",
            classes,
            image_root=os.path.join(folder, "images", long_name),
            json_file=os.path.join(folder, f"ade20k_instance_{split}.json"),
        )


register_all_ade20k_instance(dataset_root())
