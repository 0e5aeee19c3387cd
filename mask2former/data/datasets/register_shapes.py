"""The synthetic set "shapes" (mask2former/data/shapes), laid out and registered like COCO."""

import os

from ..catalogs import load_table
from .declare import (
    instance_classes,
    panoptic_classes,
    register_instances,
    register_panoptic,
    register_semantic,
)
from .folders import dataset_root


def register_all_shapes(root: str, prefix: str = "shapes") -> None:
    """Registers the set's names for panoptic, instance and semantic segmentation.

    Args:
        root: folder that contains ``shapes/``.
        prefix: first part of the names; another prefix keeps a second copy apart.
    """
    rows = load_table("shapes")
    folder = os.path.join(root, "shapes")
    for split in ("train", "val"):
        image_root = os.path.join(folder, split)
        sem_seg_root = os.path.join(folder, f"panoptic_semseg_{split}")
        instances_json = os.path.join(folder, "annotations", f"instances_{split}.json")
        paths = {
            "image_root": image_root,
            "panoptic_root": os.path.join(folder, f"panoptic_{split}"),
            "panoptic_json": os.path.join(folder, "annotations", f"panoptic_{split}.json"),
            "instances_json": instances_json,
        }
        name = f"{prefix}_panoptic_{split}"
        register_panoptic(name, panoptic_classes(rows, stuff_ids="stuff"), **paths)
        register_panoptic(
            f"{name}_with_sem_seg", panoptic_classes(rows), sem_seg_root=sem_seg_root, **paths
        )
        register_instances(
            f"{prefix}_instance_{split}",
            instance_classes(r for r in rows if r["isthing"]),
            image_root=image_root,
            json_file=instances_json,
        )
        register_semantic(
            f"{prefix}_sem_seg_{split}",
            {
                "stuff_classes": [r["name"] for r in rows],
                "stuff_colors": [r["color"] for r in rows],
            },
            image_root=image_root,
            sem_seg_root=sem_seg_root,
        )


register_all_shapes(dataset_root())
