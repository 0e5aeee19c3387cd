"""Custom sets straight from CVAT: "CVAT for images 1.1" exports of tasks, jobs or projects."""

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from detectron2.structures import BoxMode
from mask2former.data.cvat import CvatError, Shape, iterate_images, read_labels
from mask2former.data.cvat.reading import CvatImage

from ..declare import instance_classes, register
from .spec import Spec

_FRAME_SUFFIXES = (".PNG", ".png", ".jpg", ".jpeg", ".JPG")

logger = logging.getLogger(__name__)


def register_cvat(spec: Spec) -> None:
    """``ANNOTATIONS``: annotations.xml, or a folder that holds it; ``IMAGES``: default ``images``
    beside it.

    Polygons and masks become instances (several shapes of one group stay several instances);
    boxes, points, lines and tags have no mask and are left out, with a count. ``SPLIT`` keeps one
    subset of a project. Classes are those the file declares, or those used where it declares none.
    """
    path = Path(os.path.expanduser(spec.annotations))
    if path.is_dir():
        path = path / "annotations.xml"
    if not spec.annotations or not path.is_file():
        raise spec.error(
            "ANNOTATIONS",
            f"{path}: no such file (looked for {path.absolute()}); export the task or project "
            'from CVAT as "CVAT for images 1.1" and unpack the archive',
        )
    images = Path(os.path.expanduser(spec.images)) if spec.images else path.parent / "images"
    if not images.is_dir():
        raise spec.error("IMAGES", f"{images}: no such folder")
    try:
        names = spec.classes or read_labels(str(path)) or _used_labels(str(path))
    except CvatError as error:
        raise spec.error("ANNOTATIONS", str(error)) from error
    ids = {name: i for i, name in enumerate(names)}
    rows = [
        {"id": i, "name": n, "color": c}
        for i, (n, c) in enumerate(zip(names, spec.with_colors(len(names))))
    ]
    register(
        spec.name,
        lambda: _records(spec, str(path), images, ids),
        evaluator_type="coco",
        image_root=str(images),
        **instance_classes(rows),
    )


def _used_labels(path: str) -> list[str]:
    used = {s.label: None for image in iterate_images(path) for s in image.shapes if s.label}
    return sorted(used)


def _records(spec: Spec, path: str, images: Path, ids: dict[str, int]) -> list[dict[str, Any]]:
    left_out: Counter[str] = Counter()
    records, missing = [], []
    for image in iterate_images(path):
        if spec.split and image.subset and image.subset.lower() != spec.split.lower():
            continue
        if image.problem:
            logger.warning(
                "%s: image %s of %s is left out: %s", spec.name, image.title, path, image.problem
            )
            continue
        file_name = find_image(images, image)
        if file_name is None:
            missing.append(image.name)
            continue
        annotations = []
        for shape in image.shapes:
            if shape.label not in ids:
                left_out[f"label {shape.label}" if shape.label else "no label"] += 1
                continue
            annotation = _annotation(shape, image, path)
            if annotation is None:
                left_out[shape.kind] += 1
            else:
                annotations.append({"category_id": ids[shape.label], "iscrowd": 0, **annotation})
        records.append(
            {
                "file_name": str(file_name),
                "image_id": image.id if not spec.split else len(records) + 1,
                "width": image.width,
                "height": image.height,
                "annotations": annotations,
            }
        )
    if missing:
        logger.warning(
            "%s: %d images of %s are not in %s and are left out, e.g. %s",
            spec.name, len(missing), path, images, missing[0],
        )  # fmt: skip
    if left_out:
        counts = ", ".join(f"{n} x {kind}" for kind, n in left_out.most_common())
        logger.warning(
            "%s: shapes without a mask or of other classes left out: %s", spec.name, counts
        )
    if not records and spec.split and not missing:
        subsets = sorted({image.subset for image in iterate_images(path)})
        raise spec.error("SPLIT", f"{spec.split}: {path} has only the subsets {', '.join(subsets)}")
    if not records:
        raise spec.error("IMAGES", f"{images}: none of the images of {path} is there")
    return _with_unique_ids(records)


def find_image(images: Path, image: CvatImage) -> Path | None:
    """Where an export keeps an image: by name, or under its subset (project exports).

    Frames of a video have names without a suffix, but files with one (CVAT: ``.PNG``).
    """
    places = [images / image.name]
    if image.subset:
        places += [images / image.subset / image.name, images / image.subset.lower() / image.name]
    if image.name and not Path(image.name).suffix:
        places += [Path(f"{place}{suffix}") for place in places for suffix in _FRAME_SUFFIXES]
    return next((p for p in places if p.is_file()), None)


def _annotation(shape: Shape, image: CvatImage, path: str) -> dict[str, Any] | None:
    try:
        return _outline_or_mask(shape, image)
    except ValueError as error:
        raise CvatError(
            f"{path}: image {image.name}: a {shape.kind} with label {shape.label}: {error}; "
            "draw it again in CVAT, or take it out of the file"
        ) from error


def _outline_or_mask(shape: Shape, image: CvatImage) -> dict[str, Any] | None:
    if shape.kind == "polygon":
        points = shape.polygon()
        if len(points) < 3:
            return None
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        return {
            "segmentation": [points.ravel().tolist()],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "bbox_mode": BoxMode.XYWH_ABS,
        }
    if shape.kind == "mask":
        mask = shape.mask(image.height, image.width)
        if not mask.any():
            return None
        coded = mask_util.encode(np.asfortranarray(mask))
        return {
            "segmentation": coded,
            "bbox": mask_util.toBbox(coded).tolist(),
            "bbox_mode": BoxMode.XYWH_ABS,
        }
    return None


def _with_unique_ids(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Images of several tasks of a project may share an id; evaluation needs different ones."""
    if len({r["image_id"] for r in records}) < len(records):
        for number, record in enumerate(records, start=1):
            record["image_id"] = number
    return records
