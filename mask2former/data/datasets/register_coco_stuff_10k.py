"""COCO-Stuff-10K: 171 semantic classes."""

import os

from ..catalogs import load_table
from .declare import register_semantic
from .folders import dataset_root


def register_all_coco_stuff_10k(root: str) -> None:
    """Registers ``coco_2017_{train,test}_stuff_10k_sem_seg`` under ``root``."""
    rows = load_table("coco_stuff_10k")
    classes = {
        "stuff_classes": [row["name"] for row in rows],
        "stuff_dataset_id_to_contiguous_id": {row["id"]: i for i, row in enumerate(rows)},
    }
    folder = os.path.join(root, "coco", "coco_stuff_10k")
    for split in ("train", "test"):
        register_semantic(
            f"coco_2017_{split}_stuff_10k_sem_seg",
            classes,
            image_root=os.path.join(folder, "images_detectron2", split),
            sem_seg_root=os.path.join(folder, "annotations_detectron2", split),
        )


register_all_coco_stuff_10k(dataset_root())
