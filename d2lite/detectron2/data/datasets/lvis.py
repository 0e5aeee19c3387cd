"""LVIS instances -> records.

The class names (1203 of v1, 1230 of v0.5) are read from the annotation file at loading; d2lite does
not carry the tables.
"""

import json
import logging
import os
from typing import Any

from detectron2._missing import missing_getattr
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._files import require
from detectron2.data.datasets.builtin_meta import _get_coco_instances_meta
from detectron2.structures import BoxMode
from detectron2.utils.file_io import PathManager

__all__ = ["get_lvis_instances_meta", "load_lvis_json", "register_lvis_instances"]

logger = logging.getLogger(__name__)


def register_lvis_instances(
    name: str, metadata: dict[str, Any], json_file: str, image_root: str
) -> None:
    """Register a data set in LVIS format; nothing is read before it is used.

    Args:
        name: e.g. "lvis_v1_train".
        metadata: extra metadata; may be empty (classes are read from the file).
        json_file: annotations.
        image_root: folder that the image paths of the file are relative to (for LVIS v1: that with
            COCO's train2017 and val2017).
    """
    DatasetCatalog.register(name, lambda: load_lvis_json(json_file, image_root, name))
    MetadataCatalog.get(name).set(
        json_file=json_file, image_root=image_root, evaluator_type="lvis", **metadata
    )


def get_lvis_instances_meta(dataset_name: str) -> dict[str, Any]:
    """Metadata that is known without the annotation file: that of the 80 cocofied classes.

    Raises:
        ValueError: no LVIS data set.
    """
    if "cocofied" in dataset_name:
        return _get_coco_instances_meta()
    if "v0.5" in dataset_name or "v1" in dataset_name:
        return {}
    raise ValueError(f"No built-in metadata for dataset {dataset_name}")


def load_lvis_json(
    json_file: str,
    image_root: str,
    dataset_name: str | None = None,
    extra_annotation_keys: list[str] | None = None,
) -> list[dict]:
    """Read a json file in LVIS format.

    Args:
        json_file: path.
        image_root: folder that image paths are relative to.
        dataset_name: set ``thing_classes`` in its metadata, and number the categories from 0;
            None keeps the ids of the file.
        extra_annotation_keys: annotation keys to keep besides bbox, category_id and segmentation.

    Returns:
        records by rising image id, with ``not_exhaustive_category_ids`` and
        ``neg_category_ids``.

    Raises:
        FileNotFoundError: no such json file.
        AssertionError: annotation ids are not unique.
    """
    require(json_file, "annotation file", dataset_name)
    with PathManager.open(json_file) as f:
        content = json.load(f)
    id_map = None
    if dataset_name is not None:
        categories = sorted(content["categories"], key=lambda category: category["id"])
        metadata = MetadataCatalog.get(dataset_name)
        if not hasattr(metadata, "thing_classes"):
            metadata.thing_classes = [category["synonyms"][0] for category in categories]
        id_map = metadata.get("thing_dataset_id_to_contiguous_id") or {
            category["id"]: i for i, category in enumerate(categories)
        }

    annotations = content.get("annotations", [])
    if len({ann["id"] for ann in annotations}) != len(annotations):
        raise AssertionError(f"Annotation ids in '{json_file}' are not unique")
    by_image: dict[int, list[dict]] = {}
    for ann in annotations:
        by_image.setdefault(ann["image_id"], []).append(ann)

    records = [
        {
            "file_name": os.path.join(image_root, _image_path(image)),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "not_exhaustive_category_ids": image.get("not_exhaustive_category_ids", []),
            "neg_category_ids": image.get("neg_category_ids", []),
            "annotations": [
                _convert_annotation(ann, id_map, extra_annotation_keys or [])
                for ann in by_image.get(image["id"], [])
            ],
        }
        for image in sorted(content["images"], key=lambda image: image["id"])
    ]
    logger.info("Loaded %d images in the LVIS format from %s", len(records), json_file)
    return records


def _image_path(image: dict) -> str:
    """v1 gives a URL that ends in split and file, v0.5 a file name of COCO."""
    if "coco_url" in image:
        return os.path.join(*image["coco_url"].split("/")[-2:])
    # v0.5 prefixes the split: COCO_val2014_000000000001.jpg.
    return image["file_name"][-16:] if image["file_name"].startswith("COCO") else image["file_name"]


def _convert_annotation(ann: dict, id_map: dict | None, extra: list[str]) -> dict:
    obj = {
        "bbox": ann["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": ann["category_id"] if id_map is None else id_map[ann["category_id"]],
        "segmentation": [p for p in ann["segmentation"] if len(p) % 2 == 0 and len(p) >= 6],
    }
    return {**obj, **{key: ann[key] for key in extra}}


__getattr__ = missing_getattr(__name__)
