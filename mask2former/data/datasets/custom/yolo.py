"""Custom sets in YOLO's segmentation format (Ultralytics: data.yaml, images/, labels/)."""

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from detectron2.structures import BoxMode

from ...dataset_mappers.reading import DECODE_FAILURES
from ..declare import instance_classes, register
from .spec import IMAGE_SUFFIXES, CustomDatasetError, Spec

logger = logging.getLogger(__name__)

_EXIF_ORIENTATION = 274


def register_yolo(spec: Spec) -> None:
    """``ANNOTATIONS``: data.yaml with ``names`` and a list or folder of images per split.

    Labels lie beside the images with ``images`` replaced by ``labels`` in the path: one line an
    object, ``class x1 y1 x2 y2 ...`` in fractions of width and height. Lines with only a box have
    no mask and are left out, with a count. ``SPLIT`` chooses the list (default "train");
    ``IMAGES`` replaces it.
    """
    path = spec.require("ANNOTATIONS", folder=False)
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise spec.error("ANNOTATIONS", f"{path} is no readable YAML: {error}") from error
    names = data.get("names") if isinstance(data, dict) else None
    if not names:
        raise spec.error("ANNOTATIONS", f'{path} has no "names": not a YOLO data.yaml')
    names = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    names = {int(number): str(name) for number, name in names.items()}
    chosen = [n for n in (spec.classes or [names[i] for i in sorted(names)])]
    unknown = [n for n in chosen if n not in names.values()]
    if unknown:
        raise spec.error("CLASSES", f"lists {', '.join(unknown)}; {path} has {names}")
    ids = {n: chosen.index(name) if name in chosen else None for n, name in names.items()}
    rows = [
        {"id": i, "name": n, "color": c}
        for i, (n, c) in enumerate(zip(chosen, spec.with_colors(len(chosen))))
    ]
    register(
        spec.name,
        lambda: _records(spec, _images(spec, data, Path(path)), ids),
        evaluator_type="coco",
        **instance_classes(rows),
    )


def _images(spec: Spec, data: dict, path: Path) -> list[Path]:
    split = spec.split or "train"
    if spec.images:
        places = [Path(spec.require("IMAGES", folder=True))]
    else:
        listed = data.get(split)
        if not listed:
            raise spec.error("SPLIT", f'{split}: {path} has no list "{split}"')
        # Ultralytics: relative to "path", which is relative to the file (or absolute).
        root = path.parent / (data.get("path") or "")
        places = [_place(root, p) for p in ([listed] if isinstance(listed, str) else listed)]
    images: list[Path] = []
    for place in places:
        if place.is_dir():
            images += sorted(p for p in place.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        elif place.is_file():
            lines = place.read_text(encoding="utf-8").split("\n")
            images += [place.parent / line.strip() for line in lines if line.strip()]
        else:
            raise spec.error("ANNOTATIONS", f"{path}: {split} names {place}, which does not exist")
    if not images:
        raise spec.error("ANNOTATIONS", f"{path}: no images in {', '.join(map(str, places))}")
    return images


def _place(root: Path, listed: str) -> Path:
    """Where a list or folder of data.yaml is. Roboflow writes "../train" for "train"."""
    place = root / listed
    if not place.exists() and listed.startswith("../") and (root / listed[3:]).exists():
        return root / listed[3:]
    return place


def _records(spec: Spec, images: list[Path], ids: dict[int, int | None]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        sizes = list(pool.map(_oriented_size, images))
    boxes = 0
    records = []
    for index, (image, (width, height)) in enumerate(zip(images, sizes)):
        label = _label_file(image)
        annotations, only_boxes = [], 0
        if label.is_file() and width:  # an image without a file has no objects
            annotations, only_boxes = _read_labels(label, width, height, ids)
        boxes += only_boxes
        records.append(
            {
                "file_name": str(image),
                "image_id": index + 1,
                "width": width,
                "height": height,
                "annotations": annotations,
            }
        )
    if boxes:
        logger.warning("%s: %d objects have only a box, no outline: left out", spec.name, boxes)
    return records


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    for i in reversed(range(len(parts) - 1)):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _oriented_size(path: Path) -> tuple[int, int]:
    """Width and height as the image is shown, which is what the labels refer to.

    0, 0 of a file that is no image: it costs no other.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except DECODE_FAILURES as error:
        logger.warning("%s cannot be read, its labels are left out: %s", path, error)
        return 0, 0
    return (height, width) if turned else (width, height)


def _read_labels(
    path: Path, width: int, height: int, ids: dict[int, int | None]
) -> tuple[list[dict[str, Any]], int]:
    annotations, boxes = [], 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            category, values = int(float(fields[0])), np.array(fields[1:], dtype=np.float64)
        except ValueError as error:
            raise CustomDatasetError(f"{path}, line {number}: {error}") from error
        if not np.isfinite(values).all():
            raise CustomDatasetError(f"{path}, line {number}: coordinates are not finite")
        if len(values) == 4:
            boxes += 1
            continue
        if len(values) < 6 or len(values) % 2:
            raise CustomDatasetError(
                f"{path}, line {number}: an outline needs at least three points x y, found "
                f"{len(values)} numbers"
            )
        if category not in ids:
            raise CustomDatasetError(
                f"{path}, line {number}: class {category}, but data.yaml names only "
                f"{', '.join(map(str, ids))}"
            )
        if ids[category] is None:
            continue
        points = values.reshape(-1, 2).clip(0, 1) * (width, height)
        (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
        annotations.append(
            {
                "category_id": ids[category],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "bbox_mode": BoxMode.XYWH_ABS,
                "segmentation": [points.ravel().tolist()],
                "iscrowd": 0,
            }
        )
    return annotations, boxes
