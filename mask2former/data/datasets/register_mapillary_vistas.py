"""Mapillary Vistas v1.2 semantic: raw label values, 65 is "unlabeled" and ignored."""

import os

from ..catalogs import load_table
from .declare import register_semantic
from .folders import dataset_root, mapillary_folder


def register_all_mapillary_vistas(root: str) -> None:
    """Registers ``mapillary_vistas_sem_seg_{train,val}`` under ``root``."""
    rows = [row for row in load_table("mapillary_semantic") if row["evaluate"]]
    classes = {
        "stuff_classes": [row["readable"] for row in rows],
        "stuff_colors": [row["color"] for row in rows],
    }
    for split, long_name in (("train", "training"), ("val", "validation")):
        folder = os.path.join(mapillary_folder(root), long_name)
        register_semantic(
            f"mapillary_vistas_sem_seg_{split}",
            classes,
            image_root=os.path.join(folder, "images"),
            sem_seg_root=os.path.join(folder, "labels"),
            ignore_label=65,
        )


register_all_mapillary_vistas(dataset_root())
