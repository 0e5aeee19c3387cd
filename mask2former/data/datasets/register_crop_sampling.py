"""Crop sampling for panoptic sets (Mask2Former-IBS): records are categories, not images.

An index made by ``prepare_cityscapes_sampling.py``, ``prepare_mapillary_sampling.py`` (both in this
folder) or, for any other set, ``datasets/prepare_crop_sampling.py`` says which images have a
category. `register_crop_sampling` makes a registered panoptic set drawable like that.
"""

import json
import os
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.file_io import PathManager

from .declare import register
from .folders import dataset_root, mapillary_folder

# Sets beside the published two; their index lies beside their annotation file.
_FURTHER_SETS = ("coco_2017_train_panoptic", "ade20k_panoptic_train", "shapes_panoptic_train")


def sampling_index(panoptic_json: str) -> tuple[str, str]:
    """Where the index of a set lies unless said otherwise: beside its annotation file.

    Args:
        panoptic_json: ``<folder>/<name>.json``.

    Returns:
        ``<folder>/<name>_cropsampling/images_per_class.json`` and the folder ``panoptic_json/``
        beside it.
    """
    folder = os.path.splitext(panoptic_json)[0] + "_cropsampling"
    return os.path.join(folder, "images_per_class.json"), os.path.join(folder, "panoptic_json/")


def register_crop_sampling(
    name: str,
    base: str,
    *,
    images_per_cat_json: str | None = None,
    json_per_img_dir: str | None = None,
    is_train: bool = True,
) -> None:
    """Registers ``name`` for the mapper ``mask_former_panoptic_cropsampling``.

    Args:
        name: new name, by convention ``<base>_cropsampling``.
        base: a registered set in COCO's panoptic format, whose metadata is copied.
        images_per_cat_json, json_per_img_dir: the index; by default `sampling_index` of ``base``.
        is_train: records are ``{"cat_id": dataset category id}``, one a category; otherwise those
            of ``base``.

    Raises:
        ValueError: ``base`` is not registered, or no panoptic set.
    """
    if base not in DatasetCatalog.list() or not MetadataCatalog.get(base).get("panoptic_json"):
        raise ValueError(
            f"register_crop_sampling: {base} is not registered as a panoptic set; "
            "`python tools/datasets.py list panoptic` shows those that are"
        )
    metadata = {k: v for k, v in MetadataCatalog.get(base).as_dict().items() if k != "name"}
    index, per_image = sampling_index(metadata["panoptic_json"])
    index = images_per_cat_json or index

    def load() -> list[dict[str, Any]]:
        if not is_train:
            return DatasetCatalog.get(base)
        if not PathManager.exists(index):
            raise FileNotFoundError(
                f'Dataset "{name}" has no index for crop sampling: {os.path.abspath(index)} is '
                f"missing. Make it with: python datasets/prepare_crop_sampling.py --dataset {base} "
                f"(or --panoptic-json {metadata['panoptic_json']} --images "
                f"{metadata.get('image_root')} for a set of DATASETS.CUSTOM)"
            )
        with PathManager.open(index) as f:
            return [{"cat_id": category} for category in json.load(f)["cat_ids"]]

    register(
        name,
        load,
        **metadata,
        images_per_cat_json=index,
        json_per_img_dir=json_per_img_dir or per_image,
    )


def register_all_crop_sampling(root: str) -> None:
    """Registers the published sets, Cityscapes and Mapillary Vistas, and `_FURTHER_SETS`."""
    mapillary = os.path.join(mapillary_folder(root), "training")
    cityscapes = os.path.join(root, "cityscapes")
    published = {
        "mapillary_vistas_panoptic": (
            os.path.join(mapillary, "images_per_class.json"),
            os.path.join(mapillary, "panoptic_json/"),
        ),
        "cityscapes_fine_panoptic": (
            os.path.join(cityscapes, "images_per_class_train.json"),
            os.path.join(cityscapes, "panoptic_json_train/"),
        ),
    }
    for family, (index, per_image) in published.items():
        for split in ("train", "val"):
            # Both have the paths of the training index, as published.
            register_crop_sampling(
                f"{family}_{split}_cropsampling",
                f"{family}_{split}",
                images_per_cat_json=index,
                json_per_img_dir=per_image,
                is_train=split == "train",
            )
    for base in _FURTHER_SETS:
        register_crop_sampling(f"{base}_cropsampling", base)


register_all_crop_sampling(dataset_root())
