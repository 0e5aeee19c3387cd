"""ADE20K (150 classes) panoptic, and colours for the semantic set that detectron2 registers.

Trap kept for compatibility: thing ids are positions among all 150 classes while ``thing_classes``
holds only the 100 things, so names are to be looked up in ``stuff_classes``.
"""

import os

from ..catalogs import load_table
from .declare import panoptic_classes, register_panoptic, replace_metadata
from .folders import dataset_root


def register_all_ade20k_panoptic(root: str) -> None:
    """Registers ``ade20k_panoptic_{train,val}`` under ``root``."""
    classes = panoptic_classes(load_table("ade20k_150"))
    folder = os.path.join(root, "ADEChallengeData2016")
    for split, long_name in (("train", "training"), ("val", "validation")):
        replace_metadata(f"ade20k_sem_seg_{split}", stuff_colors=classes["stuff_colors"])
        register_panoptic(
            f"ade20k_panoptic_{split}",
            classes,
            image_root=os.path.join(folder, "images", long_name),
            panoptic_root=os.path.join(folder, f"ade20k_panoptic_{split}"),
            panoptic_json=os.path.join(folder, f"ade20k_panoptic_{split}.json"),
            instances_json=os.path.join(folder, f"ade20k_instance_{split}.json"),
            sem_seg_root=os.path.join(folder, "annotations_detectron2", long_name),
            evaluator_type="ade20k_panoptic_seg",
            image_id=str,
        )


register_all_ade20k_panoptic(dataset_root())
