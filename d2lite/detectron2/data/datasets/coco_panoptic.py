"""COCO panoptic format -> records."""

import json
import os
from typing import Any

from detectron2._missing import missing_getattr
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._files import require
from detectron2.data.datasets.coco import load_coco_json, load_sem_seg
from detectron2.utils.file_io import PathManager

__all__ = [
    "load_coco_panoptic_json",
    "merge_to_panoptic",
    "register_coco_panoptic",
    "register_coco_panoptic_separated",
]


def load_coco_panoptic_json(
    json_file: str, image_dir: str, gt_dir: str, meta: dict[str, Any]
) -> list[dict]:
    """Read a json file in COCO's panoptic format.

    Args:
        json_file: path, e.g. ".../annotations/panoptic_train2017.json".
        image_dir: folder of the images, named like the label maps with extension jpg.
        gt_dir: folder of the panoptic PNGs.
        meta: with ``thing_dataset_id_to_contiguous_id`` and ``stuff_dataset_id_to_contiguous_id``.

    Returns:
        records with file_name, image_id (int), pan_seg_file_name and segments_info, whose
        ``category_id`` is contiguous and which say ``isthing``.

    Raises:
        FileNotFoundError: the json file, or the first image or label map, is missing.
        KeyError: a segment of an unknown category.
        AssertionError: there is no annotation.
    """
    require(json_file, "panoptic annotation file")
    with PathManager.open(json_file) as f:
        content = json.load(f)
    records = []
    for ann in content["annotations"]:
        records.append(
            {
                "file_name": os.path.join(image_dir, _stem(ann["file_name"]) + ".jpg"),
                "image_id": int(ann["image_id"]),
                "pan_seg_file_name": os.path.join(gt_dir, ann["file_name"]),
                "segments_info": [
                    _with_contiguous_id(segment, meta, json_file)
                    for segment in ann["segments_info"]
                ],
            }
        )
    if not records:
        raise AssertionError(f"No images found in {json_file}!")
    require(records[0]["file_name"], "image")
    require(records[0]["pan_seg_file_name"], "panoptic label map")
    return records


def _stem(file_name: str) -> str:
    return os.path.splitext(file_name)[0]


def _with_contiguous_id(segment: dict, meta: dict[str, Any], json_file: str) -> dict:
    category_id = segment["category_id"]
    things = meta["thing_dataset_id_to_contiguous_id"]
    stuff = meta["stuff_dataset_id_to_contiguous_id"]
    isthing = category_id in things
    if not isthing and category_id not in stuff:
        raise KeyError(
            f"category_id={category_id} of segment {segment.get('id')} in '{json_file}' is neither "
            "a thing nor a stuff class of the dataset's metadata"
        )
    contiguous = things[category_id] if isthing else stuff[category_id]
    return {**segment, "category_id": contiguous, "isthing": isthing}


def register_coco_panoptic(
    name: str,
    metadata: dict[str, Any],
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    instances_json: str | None = None,
) -> None:
    """Register a data set in COCO's panoptic format ("standard" version: things and stuff).

    Args:
        name: e.g. "coco_2017_train_panoptic".
        metadata: classes and id maps.
        image_root: folder of the images.
        panoptic_root: folder of the panoptic PNGs.
        panoptic_json: panoptic annotations.
        instances_json: COCO instances, for the evaluation of instance segmentation.
    """
    DatasetCatalog.register(
        name, lambda: load_coco_panoptic_json(panoptic_json, image_root, panoptic_root, metadata)
    )
    MetadataCatalog.get(name).set(
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        json_file=instances_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        label_divisor=1000,
        **metadata,
    )


def register_coco_panoptic_separated(
    name: str,
    metadata: dict[str, Any],
    image_root: str,
    panoptic_root: str,
    panoptic_json: str,
    sem_seg_root: str,
    instances_json: str,
) -> None:
    """Register "<name>_separated" and "<name>_stuffonly", as used by Panoptic FPN.

    The first has COCO instances with a semantic map in which all things are one class; the second
    has the semantic maps alone.

    Args:
        name: prefix of both names.
        metadata: of both.
        image_root: folder of the images.
        panoptic_root: folder of the panoptic PNGs.
        panoptic_json: panoptic annotations.
        sem_seg_root: folder of the semantic maps.
        instances_json: COCO instances.
    """
    separated, stuffonly = f"{name}_separated", f"{name}_stuffonly"
    DatasetCatalog.register(
        separated,
        lambda: merge_to_panoptic(
            load_coco_json(instances_json, image_root, separated),
            load_sem_seg(sem_seg_root, image_root),
        ),
    )
    MetadataCatalog.get(separated).set(
        panoptic_root=panoptic_root,
        image_root=image_root,
        panoptic_json=panoptic_json,
        sem_seg_root=sem_seg_root,
        json_file=instances_json,
        evaluator_type="coco_panoptic_seg",
        ignore_label=255,
        **metadata,
    )
    DatasetCatalog.register(stuffonly, lambda: load_sem_seg(sem_seg_root, image_root))
    MetadataCatalog.get(stuffonly).set(
        sem_seg_root=sem_seg_root,
        image_root=image_root,
        evaluator_type="sem_seg",
        ignore_label=255,
        **metadata,
    )


def merge_to_panoptic(detection_dicts: list[dict], sem_seg_dicts: list[dict]) -> list[dict]:
    """Records of instances with the semantic map of the same image.

    Args:
        detection_dicts: decide which images there are.
        sem_seg_dicts: with the same ``file_name``s.

    Returns:
        copies of ``detection_dicts`` with ``sem_seg_file_name``.
    """
    if not sem_seg_dicts:
        raise AssertionError("merge_to_panoptic got no semantic maps")
    by_image = {record["file_name"]: record for record in sem_seg_dicts}
    return [{**record, **by_image[record["file_name"]]} for record in detection_dicts]


__getattr__ = missing_getattr(__name__)
