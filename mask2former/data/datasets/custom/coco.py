"""Custom sets in COCO's formats: instances and panoptic."""

import json
import logging
import os
from functools import partial
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from detectron2.data.datasets import load_coco_json

from ..declare import instance_classes, panoptic_classes, register
from ..records import load_panoptic_records
from .coco_file import first_problem, unknown_images
from .spec import Spec

logger = logging.getLogger(__name__)


def register_coco_instance(spec: Spec) -> None:
    """``ANNOTATIONS``: an instances json (polygons, RLE, crowds); ``IMAGES``: its folder.

    Contiguous ids number the file's categories by rising id, as detectron2 does, or ``CLASSES`` in
    the given order, matched by name, so that files with different ids can be trained on together.
    """
    images = spec.require("IMAGES", folder=True)
    path = spec.require("ANNOTATIONS", folder=False)
    categories = _categories(spec, path, instances=True)
    chosen = _chosen(spec, categories, path)
    ids = {row["id"]: i for i, row in enumerate(chosen)}

    def load() -> list[dict[str, Any]]:
        records = load_coco_json(path, images, extra_annotation_keys=["id"])
        return _renumber(records, ids, path)

    register(
        spec.name,
        load,
        evaluator_type="coco",
        image_root=images,
        # The file is also the ground truth of evaluation, unless some of its classes are left out.
        **({"json_file": path} if len(ids) == len(categories) else {}),
        **instance_classes(_colored(spec, chosen)),
    )


def register_coco_panoptic(spec: Spec) -> None:
    """``ANNOTATIONS``: a panoptic json; ``MASKS``: its PNGs; ``SEM_SEG``: label maps, optional."""
    images = spec.require("IMAGES", folder=True)
    path = spec.require("ANNOTATIONS", folder=False)
    masks = os.path.expanduser(spec.masks) or os.path.splitext(path)[0]
    if not os.path.isdir(masks):
        raise spec.error("MASKS", f"{masks}: no such folder (the RGB-coded PNGs of {path})")
    sem_seg = spec.require("SEM_SEG", folder=True) if spec.sem_seg else None
    categories = _categories(spec, path)
    rows = _chosen(spec, categories, path)
    if len(rows) < len(categories):
        raise spec.error("CLASSES", f"must list all classes of {path}: its maps are panoptic")
    rows = [{"isthing": 1, **row} for row in _colored(spec, rows)]
    classes = panoptic_classes(rows, stuff_ids="all" if sem_seg else "stuff")
    register(
        spec.name,
        partial(_panoptic_records, path, images, masks, sem_seg, classes),
        evaluator_type="coco_panoptic_seg",
        image_root=images,
        panoptic_root=masks,
        panoptic_json=path,
        json_file=None,
        ignore_label=spec.ignore_label,
        label_divisor=1000,
        **({} if sem_seg is None else {"sem_seg_root": sem_seg}),
        **classes,
    )


def _panoptic_records(
    path: str, images: str, masks: str, sem_seg: str | None, classes: dict
) -> list[dict[str, Any]]:
    with open(path, encoding="utf-8") as f:
        names = {image["id"]: image["file_name"] for image in json.load(f)["images"]}
    records = load_panoptic_records(
        path,
        images,
        masks,
        thing_ids=classes["thing_dataset_id_to_contiguous_id"],
        stuff_ids=classes["stuff_dataset_id_to_contiguous_id"],
        sem_seg_root=sem_seg,
        image_id=lambda value: value,
    )
    for record in records:  # the format fixes .jpg only for COCO itself
        record["file_name"] = os.path.join(images, names[record["image_id"]])
    return records


def _categories(spec: Spec, path: str, *, instances: bool = False) -> list[dict[str, Any]]:
    try:
        with open(path, encoding="utf-8") as f:
            content = json.load(f)
        rows = content["categories"]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise spec.error("ANNOTATIONS", f"{path} is no readable JSON: {error}") from error
    except (KeyError, TypeError) as error:
        raise spec.error(
            "ANNOTATIONS", f'{path} has no "categories": not in COCO format'
        ) from error
    if instances:
        content = {"images": [], "annotations": [], **content}
        problem = first_problem(content)
        if problem:
            raise spec.error("ANNOTATIONS", f"{path}: {problem}; mend the file")
        if lone := unknown_images(content):
            logger.warning(
                "%s: %d annotations of images that %s does not list are left out",
                spec.name, lone, path,
            )  # fmt: skip
    return sorted(rows, key=lambda row: row["id"])


def _chosen(spec: Spec, categories: list[dict], path: str) -> list[dict]:
    if not spec.classes:
        return categories
    by_name = {row["name"]: row for row in categories}
    unknown = [name for name in spec.classes if name not in by_name]
    if unknown:
        raise spec.error(
            "CLASSES", f"lists {', '.join(unknown)}, but {path} has {', '.join(by_name)}"
        )
    left_out = [name for name in by_name if name not in spec.classes]
    if left_out:
        logger.warning("%s: classes left out of %s: %s", spec.name, path, ", ".join(left_out))
    return [by_name[name] for name in spec.classes]


def _colored(spec: Spec, rows: list[dict]) -> list[dict]:
    if not spec.colors and all("color" in row for row in rows):
        return rows
    return [{**row, "color": c} for row, c in zip(rows, spec.with_colors(len(rows)))]


def _renumber(records: list[dict], ids: dict[int, int], path: str) -> list[dict[str, Any]]:
    """Category ids -> contiguous; annotations of classes that were left out go."""
    for record in records:
        kept = [
            a
            for a in record["annotations"]
            if a["category_id"] in ids and ("bbox" in a or "segmentation" in a)
        ]
        for annotation in kept:
            annotation["category_id"] = ids[annotation["category_id"]]
            if "bbox" not in annotation and "segmentation" in annotation:
                annotation["bbox"] = _box(annotation["segmentation"])
        record["annotations"] = kept
    return records


def _box(segmentation: dict | list) -> list[float]:
    """x, y, width, height of a mask whose file gives no box."""
    if isinstance(segmentation, dict):
        return mask_util.toBbox(segmentation).tolist()
    points = np.concatenate(segmentation).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]
