"""COCO 2017 panoptic with separate semantic ground truth, as published by Mask2Former.

The label maps come from datasets/prepare_coco_semantic_annos_from_panoptic_annos.py. Importing
this also gives ``coco_2017_{train,val}_panoptic``, which detectron2 registers, the 80 thing names
in place of all 133.
"""

import os

from ..catalogs import load_table
from .declare import panoptic_classes, register_panoptic, replace_metadata
from .folders import dataset_root


def register_all_coco_panoptic_annos_sem_seg(root: str) -> None:
    """Registers ``coco_2017_{train,val}_panoptic_with_sem_seg`` under ``root``."""
    classes = panoptic_classes(load_table("coco_panoptic"))
    folder = os.path.join(root, "coco")
    for split in ("train", "val"):
        name = f"coco_2017_{split}_panoptic"
        replace_metadata(
            name, thing_classes=classes["thing_classes"], thing_colors=classes["thing_colors"]
        )
        register_panoptic(
            f"{name}_with_sem_seg",
            classes,
            image_root=os.path.join(folder, f"{split}2017"),
            panoptic_root=os.path.join(folder, f"panoptic_{split}2017"),
            panoptic_json=os.path.join(folder, "annotations", f"panoptic_{split}2017.json"),
            instances_json=os.path.join(folder, "annotations", f"instances_{split}2017.json"),
            sem_seg_root=os.path.join(folder, f"panoptic_semseg_{split}2017"),
        )


register_all_coco_panoptic_annos_sem_seg(dataset_root())
