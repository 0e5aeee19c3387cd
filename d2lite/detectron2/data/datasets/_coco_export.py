"""Records -> COCO json, for evaluation with COCO's tools; ``coco.py`` exports it."""

import datetime
import json
import logging
import os
import shutil
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from iopath.common.file_io import file_lock

from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, PolygonMasks, RotatedBoxes
from detectron2.utils.file_io import PathManager

logger = logging.getLogger("detectron2.data.datasets.coco")


def convert_to_coco_dict(dataset_name: str) -> dict[str, Any]:
    """The records of a registered data set in COCO's json format.

    Category ids are mapped back to those of the data set where the metadata have
    ``thing_dataset_id_to_contiguous_id``; annotation ids count from 1; images without an
    ``image_id`` are numbered.

    Raises:
        ValueError: a box or mask has no usable format.
    """
    records = DatasetCatalog.get(dataset_name)
    metadata = MetadataCatalog.get(dataset_name)
    to_dataset_id = {v: k for k, v in metadata.get("thing_dataset_id_to_contiguous_id", {}).items()}
    categories = [
        {"id": to_dataset_id.get(i, i), "name": name}
        for i, name in enumerate(metadata.get("thing_classes") or [])
    ]
    images, annotations = [], []
    for position, record in enumerate(records):
        image = {
            "id": record.get("image_id", position),
            "width": int(record["width"]),
            "height": int(record["height"]),
            "file_name": str(record["file_name"]),
        }
        images.append(image)
        for ann in record.get("annotations", []):
            converted = _export_annotation(ann, image)
            converted["id"] = len(annotations) + 1
            contiguous = int(ann["category_id"])
            converted["category_id"] = int(to_dataset_id.get(contiguous, contiguous))
            annotations.append(converted)
    logger.info("Exported %d images with %d annotations", len(images), len(annotations))
    return {
        "info": {
            "date_created": str(datetime.datetime.now()),
            "description": "Automatically generated COCO json file for detectron2.",
        },
        "images": images,
        "categories": categories,
        "licenses": None,
        "annotations": annotations,
    }


def _export_annotation(ann: dict, image: dict) -> dict[str, Any]:
    box = ann["bbox"].tolist() if isinstance(ann["bbox"], np.ndarray) else list(ann["bbox"])
    if len(box) not in (4, 5):
        raise ValueError(f"A bbox has {len(box)} numbers, not 4 (or 5): {image['file_name']}")
    mode = BoxMode(ann["bbox_mode"])
    target = BoxMode.XYWH_ABS if len(box) == 4 else BoxMode.XYWHA_ABS
    box = [float(x) for x in (box if mode == target else BoxMode.convert(box, mode, target))]
    exported: dict[str, Any] = {}
    segmentation = ann.get("segmentation")
    if segmentation is not None and len(segmentation):
        exported["segmentation"], area = _export_segmentation(segmentation)
    elif target == BoxMode.XYWH_ABS:
        x, y, w, h = box
        area = Boxes([[x, y, x + w, y + h]]).area()[0].item()
    else:
        area = RotatedBoxes([box]).area()[0].item()
    if "keypoints" in ann:
        # Coordinates back to pixel indices, see load_coco_json.
        keypoints = [
            v if i % 3 == 2 else v - 0.5
            for i, v in enumerate(np.asarray(ann["keypoints"], dtype=float).reshape(-1).tolist())
        ]
        exported["keypoints"] = keypoints
        exported["num_keypoints"] = sum(v > 0 for v in keypoints[2::3])
    exported.update(
        image_id=image["id"],
        bbox=[round(x, 3) for x in box],
        area=float(area),
        iscrowd=int(ann.get("iscrowd", 0)),
    )
    return exported


def _export_segmentation(segmentation: list | dict) -> tuple[list | dict, float]:
    if isinstance(segmentation, list):
        area = PolygonMasks([segmentation]).area()[0].item()
        return [np.asarray(p, dtype=float).reshape(-1).tolist() for p in segmentation], area
    if isinstance(segmentation, dict):
        area = mask_util.area(segmentation).item()
        rle = dict(segmentation)
        if isinstance(rle["counts"], bytes):
            # json has no bytes.
            rle["counts"] = rle["counts"].decode("ascii")
        return rle, area
    raise ValueError(f"Unknown segmentation format: {type(segmentation).__name__}")


def convert_to_coco_json(dataset_name: str, output_file: str, allow_cached: bool = True) -> None:
    """Write the records of a registered data set as a COCO json file.

    Processes that ask for the same file wait for the first one.

    Args:
        dataset_name: registered name.
        output_file: a local path.
        allow_cached: keep a file that is there already.
    """
    os.makedirs(os.path.dirname(os.path.abspath(output_file)), exist_ok=True)
    with file_lock(output_file):
        if PathManager.exists(output_file) and allow_cached:
            logger.warning(
                "Using previously cached COCO format annotations at '%s'. "
                "You need to clear the cache file if your dataset has been modified.",
                output_file,
            )
            return
        logger.info("Converting annotations of '%s' to COCO format...", dataset_name)
        content = convert_to_coco_dict(dataset_name)
        # Complete or not at all.
        temporary = output_file + ".tmp"
        with PathManager.open(temporary, "w") as f:
            json.dump(content, f)
        shutil.move(temporary, output_file)
