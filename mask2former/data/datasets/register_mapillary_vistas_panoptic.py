"""Mapillary Vistas v1.2 panoptic, with the raw label maps as semantic ground truth.

There is no instance file, so ``json_file`` is None and instance evaluation cannot start.
"""

import os

from ..catalogs import load_table
from .declare import panoptic_classes, register_panoptic
from .folders import dataset_root, mapillary_folder


def register_all_mapillary_vistas_panoptic(root: str) -> None:
    """Registers ``mapillary_vistas_panoptic_{train,val}`` under ``root``."""
    classes = panoptic_classes(load_table("mapillary_panoptic"), things_as="all")
    for split, long_name in (("train", "training"), ("val", "validation")):
        folder = os.path.join(mapillary_folder(root), long_name)
        register_panoptic(
            f"mapillary_vistas_panoptic_{split}",
            classes,
            image_root=os.path.join(folder, "images"),
            panoptic_root=os.path.join(folder, "panoptic"),
            panoptic_json=os.path.join(folder, "panoptic", "panoptic_2018.json"),
            instances_json=None,
            sem_seg_root=os.path.join(folder, "labels"),
            evaluator_type="mapillary_vistas_panoptic_seg",
            ignore_label=65,
            image_id=str,
        )


register_all_mapillary_vistas_panoptic(dataset_root())
