"""Reads panoptic annotation files into detectron2's standard records."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.utils.file_io import PathManager


def load_panoptic_records(
    panoptic_json: str,
    image_root: str,
    panoptic_root: str,
    *,
    thing_ids: Mapping[int, int],
    stuff_ids: Mapping[int, int],
    sem_seg_root: str | None = None,
    image_id: Callable[[Any], Any] = int,
) -> list[dict[str, Any]]:
    """Reads a file in COCO's panoptic format.

    Args:
        panoptic_json: the annotation file.
        image_root: folder of the images, ``<stem of the annotation>.jpg``.
        panoptic_root: folder of the RGB-coded PNGs, named by the annotation.
        thing_ids, stuff_ids: dataset id -> contiguous id. A category is looked up among the
            things first, so stuff maps may list all classes.
        sem_seg_root: folder of label maps ``<stem>.png``; None leaves them out.
        image_id: applied to the file's image id (COCO's are numbers, ADE20K's file stems).

    Returns:
        one record an annotation: file_name, image_id, pan_seg_file_name, sem_seg_file_name (with
        ``sem_seg_root``), segments_info with contiguous ``category_id`` and ``isthing``.

    Raises:
        ValueError: a segment's category is unknown (names file, image and category).
    """
    with PathManager.open(panoptic_json) as f:
        annotations = json.load(f)["annotations"]
    records = []
    for annotation in annotations:
        stem = os.path.splitext(annotation["file_name"])[0]
        record = {
            "file_name": os.path.join(image_root, stem + ".jpg"),
            "image_id": image_id(annotation["image_id"]),
            "pan_seg_file_name": os.path.join(panoptic_root, annotation["file_name"]),
        }
        if sem_seg_root is not None:
            record["sem_seg_file_name"] = os.path.join(sem_seg_root, stem + ".png")
        record["segments_info"] = [
            _contiguous(segment, thing_ids, stuff_ids, panoptic_json, annotation["image_id"])
            for segment in annotation["segments_info"]
        ]
        records.append(record)
    return records


def _contiguous(
    segment: dict,
    thing_ids: Mapping[int, int],
    stuff_ids: Mapping[int, int],
    source: str,
    image: Any,
) -> dict:
    category = segment["category_id"]
    if category in thing_ids:
        return {**segment, "category_id": thing_ids[category], "isthing": True}
    if category in stuff_ids:
        return {**segment, "category_id": stuff_ids[category], "isthing": False}
    raise ValueError(
        f"{source}: image {image} has a segment of category {category}, which the dataset's "
        "classes do not contain. Register the set with the classes of this file."
    )


def number_categories(records: list[dict[str, Any]], ids: Mapping[int, int], source: str) -> None:
    """Replaces the dataset category ids of instance records by contiguous ones, in place.

    Raises:
        ValueError: an annotation's category is unknown (names file, image and category).
    """
    for record in records:
        for annotation in record["annotations"]:
            category = annotation["category_id"]
            if category not in ids:
                raise ValueError(
                    f"{source}: {record['file_name']} has an annotation of category {category}, "
                    "which the dataset's classes do not contain. Register the set with the "
                    "classes of this file."
                )
            annotation["category_id"] = ids[category]
