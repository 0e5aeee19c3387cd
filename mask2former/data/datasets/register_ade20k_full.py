"""ADE20K with all 847 classes: 16-bit TIFF label maps, 65535 where unlabelled."""

import os

from ..catalogs import load_table
from .declare import register_semantic
from .folders import dataset_root


def register_all_ade20k_full(root: str) -> None:
    """Registers ``ade20k_full_sem_seg_{train,val}`` under ``root``."""
    names = [row["name"] for row in load_table("ade20k_full")]
    folder = os.path.join(root, "ADE20K_2021_17_01")
    for split, long_name in (("train", "training"), ("val", "validation")):
        register_semantic(
            f"ade20k_full_sem_seg_{split}",
            {"stuff_classes": names},
            image_root=os.path.join(folder, "images_detectron2", long_name),
            sem_seg_root=os.path.join(folder, "annotations_detectron2", long_name),
            gt_ext="tif",
            ignore_label=65535,
        )


register_all_ade20k_full(dataset_root())
