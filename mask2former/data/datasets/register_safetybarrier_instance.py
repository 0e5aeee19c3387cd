"""Safety-barrier parts (gohjiayi/Mask2Former): four classes, COCO instance format.

The published registration looks for ``datasets/safetybarrier`` in the working directory, whatever
``$DETECTRON2_DATASETS`` says. That place comes first here too; where it does not exist, the set is
looked for under the variable's root like all others.
"""

import json
import os
from functools import partial
from typing import Any

from detectron2.data.datasets import load_coco_json

from .declare import register
from .folders import dataset_root, require_dataset_files

CLASSES = ["rail_top", "rail_mid", "toeboard", "vertical_post"]
_PUBLISHED_ROOT = "datasets"


def register_all_safetybarrier(root: str) -> None:
    """Registers ``safetybarrier_train`` and ``safetybarrier_val``.

    Args:
        root: folder that contains ``safetybarrier/{images/{train,val},annotations/}``.
    """
    folder = os.path.join(root, "safetybarrier")
    for split in ("train", "val"):
        name = f"safetybarrier_{split}"
        json_file = os.path.join(folder, "annotations", f"instances_{split}.json")
        image_root = os.path.join(folder, "images", split)
        register(
            name,
            partial(_load, name, json_file, image_root),
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
            thing_classes=CLASSES,
        )


def _load(name: str, json_file: str, image_root: str) -> list[dict[str, Any]]:
    require_dataset_files(name)
    with open(json_file, encoding="utf-8") as f:
        rows = sorted(json.load(f)["categories"], key=lambda row: row["id"])
    found = [row["name"] for row in rows]
    if found != CLASSES:
        raise ValueError(
            f"{json_file}: its categories are {', '.join(found)} (by id), but {name} has "
            f"{', '.join(CLASSES)}. For other classes declare the set in the config "
            "(DATASETS.CUSTOM, see docs/custom-dataset.md)."
        )
    return load_coco_json(json_file, image_root, name)


def _root() -> str:
    published = os.path.join(_PUBLISHED_ROOT, "safetybarrier")
    return _PUBLISHED_ROOT if os.path.isdir(published) else dataset_root()


register_all_safetybarrier(_root())
