"""Cityscapes panoptic -> records."""

import json
import logging
import os
from typing import Any

from detectron2._missing import missing_getattr
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets._files import require
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.utils.file_io import PathManager

__all__ = [
    "get_cityscapes_panoptic_files",
    "load_cityscapes_panoptic",
    "register_all_cityscapes_panoptic",
]

logger = logging.getLogger(__name__)

_PREPARE = (
    " Panoptic files are made by cityscapesscripts/preparation/createPanopticImgs.py, semantic "
    "ones by createTrainIdLabelImgs.py."
)


def get_cityscapes_panoptic_files(
    image_dir: str, gt_dir: str, json_info: dict
) -> list[tuple[str, str, list[dict]]]:
    """(image, panoptic PNG, segments_info) of every annotated image, in the order of the file.

    Args:
        image_dir: folder of the cities' folders.
        gt_dir: folder of the panoptic PNGs.
        json_info: content of the panoptic json.

    Raises:
        AssertionError: there is no image for an annotation.
    """
    suffix = "_leftImg8bit.png"
    images = {}
    for city in PathManager.ls(image_dir):
        for name in PathManager.ls(os.path.join(image_dir, city)):
            if not name.endswith(suffix):
                raise AssertionError(f"'{image_dir}/{city}/{name}' does not end in {suffix}")
            images[name[: -len(suffix)]] = os.path.join(image_dir, city, name)
    files = []
    for ann in json_info["annotations"]:
        image_file = images.get(ann["image_id"])
        if image_file is None:
            raise AssertionError(f"No image {ann['image_id']} found for an annotation: {image_dir}")
        label_file = os.path.join(gt_dir, ann["file_name"])
        files.append((image_file, label_file, ann["segments_info"]))
    if not files:
        raise AssertionError(f"No images found in {image_dir}")
    return files


def load_cityscapes_panoptic(
    image_dir: str, gt_dir: str, gt_json: str, meta: dict[str, Any]
) -> list[dict]:
    """Read Cityscapes' panoptic annotations.

    Args:
        image_dir: e.g. "~/cityscapes/leftImg8bit/train".
        gt_dir: folder of the PNGs, e.g. "~/cityscapes/gtFine/cityscapes_panoptic_train".
        gt_json: e.g. "~/cityscapes/gtFine/cityscapes_panoptic_train.json".
        meta: with ``thing_dataset_id_to_contiguous_id`` and ``stuff_dataset_id_to_contiguous_id``.

    Returns:
        records with file_name, image_id ("city_sequence_frame"), sem_seg_file_name,
        pan_seg_file_name and segments_info with contiguous ``category_id``.

    Raises:
        FileNotFoundError: the json file, a folder or the first label map is missing.
    """
    require(gt_json, "panoptic annotation file", "cityscapes", _PREPARE)
    require(image_dir, "image folder", "cityscapes")
    with PathManager.open(gt_json) as f:
        content = json.load(f)
    # Stuff and things are numbered together, by train id.
    contiguous = {
        **meta["stuff_dataset_id_to_contiguous_id"],
        **meta["thing_dataset_id_to_contiguous_id"],
    }
    records = []
    for image_file, label_file, segments in get_cityscapes_panoptic_files(
        image_dir, gt_dir, content
    ):
        image_name = os.path.basename(image_file)
        semantic = image_file.replace("leftImg8bit", "gtFine").removesuffix(".png")
        records.append(
            {
                "file_name": image_file,
                "image_id": "_".join(os.path.splitext(image_name)[0].split("_")[:3]),
                "sem_seg_file_name": semantic + "_labelTrainIds.png",
                "pan_seg_file_name": label_file,
                "segments_info": [
                    {**segment, "category_id": contiguous[segment["category_id"]]}
                    for segment in segments
                ],
            }
        )
    require(records[0]["sem_seg_file_name"], "semantic map", "cityscapes", _PREPARE)
    require(records[0]["pan_seg_file_name"], "panoptic map", "cityscapes", _PREPARE)
    return records


def _metadata() -> dict[str, Any]:
    names = [row["name"] for row in CITYSCAPES_CATEGORIES]
    colors = [row["color"] for row in CITYSCAPES_CATEGORIES]

    def id_map(isthing: int) -> dict[int, int]:
        return {r["id"]: r["trainId"] for r in CITYSCAPES_CATEGORIES if r["isthing"] == isthing}

    return {
        "thing_classes": names,
        "thing_colors": colors,
        "stuff_classes": list(names),
        "stuff_colors": list(colors),
        "thing_dataset_id_to_contiguous_id": id_map(1),
        "stuff_dataset_id_to_contiguous_id": id_map(0),
    }


def register_all_cityscapes_panoptic(root: str) -> None:
    """Register cityscapes_fine_panoptic_{train,val} below ``root``/cityscapes."""
    for split in ("train", "val"):
        gt = os.path.join(root, "cityscapes/gtFine")
        _register_split(
            f"cityscapes_fine_panoptic_{split}",
            image_dir=os.path.join(root, "cityscapes/leftImg8bit", split),
            panoptic_root=os.path.join(gt, f"cityscapes_panoptic_{split}"),
            gt_dir=os.path.join(gt, split),
        )


def _register_split(name: str, image_dir: str, panoptic_root: str, gt_dir: str) -> None:
    metadata, gt_json = _metadata(), panoptic_root + ".json"
    DatasetCatalog.register(
        name, lambda: load_cityscapes_panoptic(image_dir, panoptic_root, gt_json, metadata)
    )
    MetadataCatalog.get(name).set(
        panoptic_root=panoptic_root,
        image_root=image_dir,
        panoptic_json=gt_json,
        gt_dir=gt_dir,
        evaluator_type="cityscapes_panoptic_seg",
        ignore_label=255,
        label_divisor=1000,
        **metadata,
    )


__getattr__ = missing_getattr(__name__)
