"""Cityscapes instances and semantics -> records.

The label table is our own JSON, so cityscapesscripts is not needed.
"""

import functools
import itertools
import json
import logging
import multiprocessing as mp
import os
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
from PIL import Image

from detectron2._missing import missing_getattr
from detectron2.data.datasets._files import require
from detectron2.data.datasets._tables import load_table
from detectron2.structures import BoxMode
from detectron2.utils.comm import get_world_size
from detectron2.utils.file_io import PathManager

__all__ = ["load_cityscapes_instances", "load_cityscapes_semantic"]

logger = logging.getLogger(__name__)

_PREPARE = (
    " Cityscapes keeps leftImg8bit/ and gtFine/ side by side; labelTrainIds maps are made by "
    "cityscapesscripts/preparation/createTrainIdLabelImgs.py."
)


@functools.cache
def _labels_by_name() -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in load_table("cityscapes_labels")}


@functools.cache
def _instance_ids() -> dict[int, int]:
    """Label id -> 0..7, of the labels with instances that are evaluated."""
    rows = [r for r in _labels_by_name().values() if r["hasInstances"] and not r["ignoreInEval"]]
    return {row["id"]: i for i, row in enumerate(rows)}


def _get_cityscapes_files(image_dir: str, gt_dir: str) -> list[tuple[str, str, str, str]]:
    """(image, instanceIds, labelIds, polygons) of every image, by city and name."""
    require(image_dir, "image folder", "cityscapes", _PREPARE)
    files = []
    suffix = "leftImg8bit.png"
    for city in sorted(PathManager.ls(image_dir)):
        for name in sorted(PathManager.ls(os.path.join(image_dir, city))):
            if not name.endswith(suffix):
                raise AssertionError(f"'{image_dir}/{city}/{name}' does not end in {suffix}")
            base = os.path.join(gt_dir, city, name[: -len(suffix)])
            files.append(
                (
                    os.path.join(image_dir, city, name),
                    base + "gtFine_instanceIds.png",
                    base + "gtFine_labelIds.png",
                    base + "gtFine_polygons.json",
                )
            )
    if not files:
        raise AssertionError(f"No images found in {image_dir}")
    for path in files[0][1:]:
        require(path, "annotation file", "cityscapes", _PREPARE)
    return files


def load_cityscapes_instances(
    image_dir: str, gt_dir: str, from_json: bool = True, to_polygons: bool = True
) -> list[dict]:
    """Instances of the eight thing classes, in a pool of processes.

    Args:
        image_dir: e.g. "~/cityscapes/leftImg8bit/train".
        gt_dir: e.g. "~/cityscapes/gtFine/train".
        from_json: from the polygons (overlaps resolved) instead of the instance PNGs.
        to_polygons: polygons instead of RLE; always so with ``from_json``.

    Returns:
        records with contiguous ``category_id`` 0..7.
    """
    if from_json and not to_polygons:
        raise AssertionError("Cityscapes's json annotations are in polygon format (to_polygons).")
    files = _get_cityscapes_files(image_dir, gt_dir)
    logger.info("Preprocessing cityscapes annotations ...")
    # This also runs inside each of several training processes.
    processes = max((os.cpu_count() or 1) // get_world_size() // 2, 1)
    convert = functools.partial(
        _cityscapes_files_to_dict, from_json=from_json, to_polygons=to_polygons
    )
    with mp.Pool(processes) as pool:
        records = pool.map(convert, files)
    logger.info("Loaded %d images from %s", len(records), image_dir)
    contiguous = _instance_ids()
    for record in records:
        for ann in record["annotations"]:
            ann["category_id"] = contiguous[ann["category_id"]]
    return records


def load_cityscapes_semantic(image_dir: str, gt_dir: str) -> list[dict]:
    """Records with labelTrainIds maps (0..18, 255 ignored).

    Args:
        image_dir: e.g. "~/cityscapes/leftImg8bit/train".
        gt_dir: e.g. "~/cityscapes/gtFine/train".

    Raises:
        FileNotFoundError: the first labelTrainIds map is missing (it has to be generated).
    """
    records = []
    for image_file, _, label_file, json_file in _get_cityscapes_files(image_dir, gt_dir):
        with PathManager.open(json_file) as f:
            size = json.load(f)
        records.append(
            {
                "file_name": image_file,
                "sem_seg_file_name": label_file.replace("labelIds", "labelTrainIds"),
                "height": size["imgHeight"],
                "width": size["imgWidth"],
            }
        )
    require(records[0]["sem_seg_file_name"], "semantic map", "cityscapes", _PREPARE)
    return records


def _cityscapes_files_to_dict(
    files: tuple[str, str, str, str], from_json: bool, to_polygons: bool
) -> dict:
    """Record of one image; ``category_id`` is the label id."""
    image_file, instance_id_file, _, json_file = files
    if from_json:
        with PathManager.open(json_file) as f:
            content = json.load(f)
        height, width = content["imgHeight"], content["imgWidth"]
        annotations = _annotations_from_polygons(content["objects"])
    else:
        with PathManager.open(instance_id_file, "rb") as f:
            ids = np.asarray(Image.open(f))
        height, width = ids.shape
        annotations = _annotations_from_ids(ids, to_polygons)
    return {
        "file_name": image_file,
        "image_id": os.path.basename(image_file),
        "height": height,
        "width": width,
        "annotations": annotations,
    }


def _annotations_from_polygons(objects: list[dict]) -> list[dict]:
    """Later polygons lie on top of earlier ones, so go backwards and cut off what is covered."""
    from shapely.geometry import MultiPolygon, Polygon

    annotations = []
    covered = Polygon()
    for obj in reversed(objects):
        if "deleted" in obj:
            continue
        label, crowd = _label(obj["label"])
        if label["id"] < 0:
            continue
        # The official masks hold each pixel that the integer polygon touches: moved to the pixel
        # centre, that is a polygon half a pixel larger all around.
        shape = Polygon(np.asarray(obj["polygon"], dtype=np.float32) + 0.5).buffer(0.5, quad_segs=4)
        if not label["hasInstances"] or label["ignoreInEval"]:
            covered = covered.union(shape)
            continue
        visible = shape.difference(covered)
        if visible.is_empty:
            continue
        covered = covered.union(shape)
        parts = visible.geoms if isinstance(visible, MultiPolygon) else [visible]
        annotations.append(
            {
                "iscrowd": crowd,
                "category_id": label["id"],
                # COCO's polygons have no holes: outlines only.
                "segmentation": [
                    list(itertools.chain.from_iterable(part.exterior.coords)) for part in parts
                ],
                "bbox": visible.bounds,
                "bbox_mode": BoxMode.XYXY_ABS,
            }
        )
    return annotations


def _label(name: str) -> tuple[dict[str, Any], bool]:
    """Label of a name, and whether it is a group of instances that are not told apart."""
    labels = _labels_by_name()
    if name in labels:
        return labels[name], name.endswith("group")
    if name.endswith("group") and name.removesuffix("group") in labels:
        return labels[name.removesuffix("group")], True
    raise KeyError(f"Unknown Cityscapes label '{name}'")


def _annotations_from_ids(ids: np.ndarray, to_polygons: bool) -> list[dict]:
    """From an instanceIds PNG: label id * 1000 + number, or the label id alone for a group."""
    by_id = {row["id"]: row for row in _labels_by_name().values()}
    annotations = []
    # Ids below 24 are stuff.
    for instance_id in np.unique(ids[ids >= 24]).tolist():
        crowd = instance_id < 1000
        label = by_id[instance_id if crowd else instance_id // 1000]
        if not label["hasInstances"] or label["ignoreInEval"]:
            continue
        mask = np.asfortranarray(ids == instance_id, dtype=np.uint8)
        ys, xs = np.nonzero(mask)
        box = (int(xs.min()), int(ys.min()), int(xs.max()), int(ys.max()))
        if box[2] <= box[0] or box[3] <= box[1]:
            continue
        if to_polygons:
            contours = cv2.findContours(
                np.ascontiguousarray(mask), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )[-2]
            segmentation: Any = [c.reshape(-1).tolist() for c in contours if len(c) >= 3]
            if not segmentation:
                continue
        else:
            segmentation = mask_util.encode(mask)
        annotations.append(
            {
                "iscrowd": crowd,
                "category_id": label["id"],
                "bbox": box,
                "bbox_mode": BoxMode.XYXY_ABS,
                "segmentation": segmentation,
            }
        )
    return annotations


__getattr__ = missing_getattr(__name__)
