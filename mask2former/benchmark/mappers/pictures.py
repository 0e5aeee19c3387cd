"""Synthetic photographs with ground truth, stored as the real datasets store theirs.

They cost what real ones cost: the sizes, codings, file sizes, numbers of objects and of polygon
points are those of COCO, ADE20K and Cityscapes. What they show does not matter to a mapper.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from detectron2.structures import BoxMode


@dataclass(frozen=True)
class Kind:
    """What the pictures of a dataset are like. Class ids are contiguous: things, then stuff."""

    height: int
    width: int
    suffix: str
    objects: int
    points: int  # of a polygon
    things: int
    stuff: int


KINDS = {
    "coco": Kind(480, 640, ".jpg", objects=15, points=30, things=80, stuff=53),
    "ade20k": Kind(512, 683, ".jpg", objects=20, points=30, things=100, stuff=50),
    "cityscapes": Kind(1024, 2048, ".png", objects=30, points=40, things=8, stuff=11),
}


def write_pictures(folder: Path, kind: Kind, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Writes pictures and their label maps.

    Returns:
        a record a picture with everything that any mapper reads: ``annotations`` (polygons),
        ``sem_seg_file_name``, ``pan_seg_file_name`` and ``segments_info``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    return [_write_picture(folder, kind, f"{number:06d}", rng) for number in range(count)]


def write_index(folder: Path, records: list[dict[str, Any]]) -> dict[str, str]:
    """What crop sampling prepares, as the entries of the metadata that name it."""
    (folder / "panoptic_json").mkdir(exist_ok=True)
    images: dict[int, list[str]] = {}
    for record in records:
        text = json.dumps({k: v for k, v in record.items() if k != "annotations"})
        (folder / "panoptic_json" / f"{record['image_id']}.json").write_text(text)
        for category in dict.fromkeys(s["category_id"] for s in record["segments_info"]):
            images.setdefault(category, []).append(record["image_id"])
    index = {"cat_ids": list(images), "imgs_per_cat": images}
    (folder / "images_per_class.json").write_text(json.dumps(index))
    return {
        "images_per_cat_json": str(folder / "images_per_class.json"),
        "json_per_img_dir": str(folder / "panoptic_json"),
    }


def _write_picture(folder: Path, kind: Kind, stem: str, rng: np.random.Generator) -> dict[str, Any]:
    ids, classes = _background(kind, rng)
    annotations = []
    for number in range(kind.objects):
        outline = _outline(kind, rng)
        category = int(rng.integers(kind.things))
        segment = kind.stuff + 1 + number
        cv2.fillPoly(ids, [np.round(outline).astype(np.int32)], segment)
        classes[segment] = category
        (x0, y0), (x1, y1) = outline.min(0), outline.max(0)
        annotations.append(
            {
                "category_id": category,
                "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                "bbox_mode": BoxMode.XYWH_ABS,
                "iscrowd": 0,
                "segmentation": [[float(v) for v in outline.ravel()]],
            }
        )
    names = {part: str(folder / f"{stem}_{part}.png") for part in ("labels", "panoptic")}
    lookup = np.zeros(max(classes) + 1, np.uint8)
    lookup[list(classes)] = list(classes.values())
    Image.fromarray(lookup[ids]).save(names["labels"])
    # Ids as large as Cityscapes' are: two channels of the coding are in use.
    coded = ids.astype(np.int64) * 1000
    rgb = np.stack([coded & 255, coded >> 8 & 255, coded >> 16], -1).astype(np.uint8)
    Image.fromarray(rgb).save(names["panoptic"])
    image = folder / f"{stem}{kind.suffix}"
    Image.fromarray(_photograph(ids, rng)).save(image, quality=90)
    return {
        "file_name": str(image),
        "image_id": stem,
        "height": kind.height,
        "width": kind.width,
        "sem_seg_file_name": names["labels"],
        "pan_seg_file_name": names["panoptic"],
        "segments_info": [_segment(ids, i, c) for i, c in classes.items() if (ids == i).any()],
        "annotations": annotations,
    }


def _background(kind: Kind, rng: np.random.Generator) -> tuple[np.ndarray, dict[int, int]]:
    """Bands of stuff under wavy horizons: segment numbers [H, W] and the class of each."""
    ids = np.zeros((kind.height, kind.width), np.int32)
    rows, columns = np.arange(kind.height)[:, None], np.arange(kind.width)
    chosen = rng.choice(kind.stuff, 4, replace=False)
    classes = {}
    for band, category in enumerate(chosen):
        wave = np.sin(columns / kind.width * rng.uniform(3, 12) + rng.uniform(0, 6))
        horizon = kind.height * (band / len(chosen) + 0.05 * wave)
        ids[rows >= horizon] = band + 1
        classes[band + 1] = kind.things + int(category)
    ids[ids == 0] = 1
    return ids, classes


def _outline(kind: Kind, rng: np.random.Generator) -> np.ndarray:
    """A closed wobbly curve, most often small: float64 [points, 2] inside the picture."""
    side = min(kind.height, kind.width)
    radius = side * np.exp(rng.uniform(np.log(0.02), np.log(0.25)))
    angles = np.linspace(0, 2 * np.pi, kind.points, endpoint=False)
    wobble = 1 + 0.3 * np.sin(3 * angles + rng.uniform(0, 6)) + rng.normal(0, 0.05, kind.points)
    curve = radius * wobble[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
    centre = rng.uniform((0, 0), (kind.width, kind.height))
    return np.clip(np.round(centre + curve, 2), 0, (kind.width, kind.height))


def _segment(ids: np.ndarray, segment: int, category: int) -> dict[str, Any]:
    mask = ids == segment
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return {
        "id": segment * 1000,
        "category_id": category,
        "iscrowd": 0,
        "area": int(mask.sum()),
        "bbox": [x, y, width, height],
    }


def _photograph(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tinted regions, soft texture and noise, which make files as large as a camera's."""
    height, width = ids.shape
    tints = rng.uniform(40, 215, (int(ids.max()) + 1, 3)).astype(np.float32)
    coarse = rng.normal(0, 25, (height // 16, width // 16, 3)).astype(np.float32)
    image = tints[ids] + cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 6, image.shape).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8)
