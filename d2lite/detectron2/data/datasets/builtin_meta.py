"""Classes, colours and id maps of the built-in data sets."""

from typing import Any

from detectron2._missing import missing_getattr
from detectron2.data.datasets._tables import load_json, load_table

__all__ = [
    "ADE20K_SEM_SEG_CATEGORIES",
    "CITYSCAPES_CATEGORIES",
    "COCO_CATEGORIES",
    "COCO_PERSON_KEYPOINT_FLIP_MAP",
    "COCO_PERSON_KEYPOINT_NAMES",
    "KEYPOINT_CONNECTION_RULES",
]

# Rows with id, name, isthing (1 or 0) and color (RGB); Cityscapes also trainId.
COCO_CATEGORIES: list[dict[str, Any]] = load_table("coco_categories")
CITYSCAPES_CATEGORIES: list[dict[str, Any]] = load_table("cityscapes_categories")
# 150 names.
ADE20K_SEM_SEG_CATEGORIES: list[str] = [row["name"] for row in load_table("ade20k_categories")]

_KEYPOINTS = load_json("coco_keypoints")
COCO_PERSON_KEYPOINT_NAMES = tuple(_KEYPOINTS["keypoint_names"])
COCO_PERSON_KEYPOINT_FLIP_MAP = tuple(tuple(pair) for pair in _KEYPOINTS["keypoint_flip_map"])
KEYPOINT_CONNECTION_RULES = [
    (start, end, tuple(color)) for start, end, color in _KEYPOINTS["keypoint_connection_rules"]
]

# Colour of the class "things" in the separated version; free choice of detectron2.
_THINGS_COLOR = [82, 18, 128]


def _coco_rows(isthing: bool) -> list[dict[str, Any]]:
    return [row for row in COCO_CATEGORIES if bool(row["isthing"]) == isthing]


def _get_coco_instances_meta() -> dict[str, Any]:
    """80 classes, numbered by table order."""
    things = _coco_rows(isthing=True)
    return {
        "thing_dataset_id_to_contiguous_id": {row["id"]: i for i, row in enumerate(things)},
        "thing_classes": [row["name"] for row in things],
        "thing_colors": [row["color"] for row in things],
    }


def _get_coco_panoptic_separated_meta() -> dict[str, Any]:
    """80 thing classes, and 54 semantic ones: all things together, then 53 stuff classes."""
    stuff = _coco_rows(isthing=False)
    # The semantic maps were made for names without the suffixes of the panoptic merge.
    names = [row["name"].replace("-other", "").replace("-merged", "") for row in stuff]
    return {
        **_get_coco_instances_meta(),
        "stuff_dataset_id_to_contiguous_id": {
            0: 0,
            **{row["id"]: i for i, row in enumerate(stuff, start=1)},
        },
        "stuff_classes": ["things", *names],
        "stuff_colors": [_THINGS_COLOR, *(row["color"] for row in stuff)],
    }


def _get_coco_panoptic_standard_meta() -> dict[str, Any]:
    """133 classes, things and stuff in one numbering by table order.

    ``thing_classes`` and ``stuff_classes`` both have all 133 names, so that either can be indexed
    with a predicted class.
    """
    names = [row["name"] for row in COCO_CATEGORIES]
    colors = [row["color"] for row in COCO_CATEGORIES]
    number = {row["id"]: i for i, row in enumerate(COCO_CATEGORIES)}
    return {
        "thing_classes": names,
        "thing_colors": colors,
        "stuff_classes": list(names),
        "stuff_colors": list(colors),
        "thing_dataset_id_to_contiguous_id": {
            row["id"]: number[row["id"]] for row in _coco_rows(isthing=True)
        },
        "stuff_dataset_id_to_contiguous_id": {
            row["id"]: number[row["id"]] for row in _coco_rows(isthing=False)
        },
    }


def _get_coco_person_meta() -> dict[str, Any]:
    return {
        "thing_classes": ["person"],
        "keypoint_names": COCO_PERSON_KEYPOINT_NAMES,
        "keypoint_flip_map": COCO_PERSON_KEYPOINT_FLIP_MAP,
        "keypoint_connection_rules": KEYPOINT_CONNECTION_RULES,
    }


def _get_cityscapes_meta() -> dict[str, Any]:
    return {
        "thing_classes": [row["name"] for row in CITYSCAPES_CATEGORIES if row["isthing"]],
        "stuff_classes": [row["name"] for row in CITYSCAPES_CATEGORIES],
    }


_BUILTIN = {
    "coco": _get_coco_instances_meta,
    "coco_panoptic_separated": _get_coco_panoptic_separated_meta,
    "coco_panoptic_standard": _get_coco_panoptic_standard_meta,
    "coco_person": _get_coco_person_meta,
    "cityscapes": _get_cityscapes_meta,
}


def _get_builtin_metadata(dataset_name: str) -> dict[str, Any]:
    """Fresh metadata of a family of data sets.

    Raises:
        KeyError: unknown family.
    """
    if dataset_name not in _BUILTIN:
        raise KeyError(
            f"There is no built-in metadata for dataset {dataset_name}. "
            f"Known: {', '.join(_BUILTIN)}"
        )
    return _BUILTIN[dataset_name]()


__getattr__ = missing_getattr(__name__)
