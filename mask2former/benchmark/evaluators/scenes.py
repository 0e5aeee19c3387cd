"""Synthetic sets of any number of images, with predictions as large as those of a real model."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

SIZE = (480, 640)  # COCO's usual size
DETECTIONS = 100  # TEST.DETECTIONS_PER_IMAGE
CLASSES = 80
_VARIANTS = 8  # different pictures, in turn

Pairs = Iterator[tuple[dict, dict]]


def blob(rng: np.random.Generator) -> np.ndarray:
    """A mask with a ragged outline: its run lengths cost about what those of a real one do."""
    height, width = SIZE
    centre = rng.uniform((0, 0), (width, height))
    radius = rng.uniform(0.03, 0.3) * height
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    lengths = radius * (1 + 0.15 * rng.standard_normal(len(angles)))
    points = centre + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    mask = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 1)
    return mask


def instances(folder: Path, images: int, name: str) -> Pairs:
    """A COCO set with 7 objects an image; 100 detections an image."""
    rng = np.random.default_rng(0)
    scenes = [[blob(rng) for _ in range(DETECTIONS)] for _ in range(_VARIANTS)]
    annotations = []
    for i in range(images):
        for k in range(7):
            mask = scenes[i % _VARIANTS][k]
            rle = mask_util.encode(np.asfortranarray(mask))
            rle["counts"] = rle["counts"].decode()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": i,
                    "category_id": 1 + (i + k) % CLASSES,
                    "iscrowd": 0,
                    "area": int(mask.sum()),
                    "bbox": mask_util.toBbox(rle).tolist(),
                    "segmentation": rle,
                }
            )
    content = {
        "images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(images)],
        "annotations": annotations,
        "categories": [{"id": 1 + c, "name": f"class {c}"} for c in range(CLASSES)],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    MetadataCatalog.get(name).set(
        json_file=str(folder / "instances.json"),
        thing_classes=[f"class {c}" for c in range(CLASSES)],
        thing_dataset_id_to_contiguous_id={1 + c: c for c in range(CLASSES)},
    )
    stacks = [torch.from_numpy(np.stack(scene)) for scene in scenes]

    def predictions() -> Pairs:
        for i in range(images):
            found = Instances(SIZE, pred_masks=stacks[i % _VARIANTS])
            found.pred_boxes = Boxes(torch.zeros(DETECTIONS, 4))
            found.scores = torch.from_numpy(rng.random(DETECTIONS, np.float32))
            found.pred_classes = torch.from_numpy((i + np.arange(DETECTIONS)) % CLASSES)
            yield {"image_id": i}, {"instances": found}

    return predictions()


def _label_maps() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    maps = []
    for _ in range(_VARIANTS):
        labels = np.zeros(SIZE, np.uint8)
        for k in range(1, 16):
            labels[blob(rng) > 0] = k
        maps.append(labels)
    return maps


def semantic(folder: Path, images: int, name: str) -> Pairs:
    """A semantic set of 16 classes."""
    maps = _label_maps()
    for v, labels in enumerate(maps):
        Image.fromarray(labels).save(folder / f"{v}.png")
    DatasetCatalog.register(
        name,
        lambda: [
            {"file_name": f"{i}.jpg", "sem_seg_file_name": str(folder / f"{i % _VARIANTS}.png")}
            for i in range(images)
        ],
    )
    MetadataCatalog.get(name).set(stuff_classes=[f"class {c}" for c in range(16)], ignore_label=255)
    scores = [
        torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 16).permute(2, 0, 1).float()
        for labels in maps
    ]
    return (
        ({"image_id": i, "file_name": f"{i}.jpg"}, {"sem_seg": scores[(i + 1) % _VARIANTS]})
        for i in range(images)
    )


def panoptic(folder: Path, images: int, name: str) -> Pairs:
    """A panoptic set of 16 classes, half of them things."""
    maps = _label_maps()
    annotations = []
    for v, labels in enumerate(maps):
        rgb = np.stack([labels + 1, labels * 0, labels * 0], -1)
        Image.fromarray(rgb.astype(np.uint8)).save(folder / f"{v}.png")
    for i in range(images):
        labels = maps[i % _VARIANTS]
        segments = [
            {"id": k + 1, "category_id": k, "area": int((labels == k).sum()), "iscrowd": 0}
            for k in np.unique(labels).tolist()
        ]
        annotations.append(
            {"image_id": i, "file_name": f"{i % _VARIANTS}.png", "segments_info": segments}
        )
    categories = [{"id": c, "name": f"class {c}", "isthing": int(c < 8)} for c in range(16)]
    content = {"annotations": annotations, "categories": categories}
    (folder / "panoptic.json").write_text(json.dumps(content))
    MetadataCatalog.get(name).set(
        panoptic_json=str(folder / "panoptic.json"),
        panoptic_root=str(folder),
        thing_dataset_id_to_contiguous_id={c: c for c in range(8)},
        stuff_dataset_id_to_contiguous_id={c: c for c in range(8, 16)},
        label_divisor=1000,
    )

    def predictions() -> Pairs:
        for i in range(images):
            labels = maps[(i + 1) % _VARIANTS]
            segments = [
                {"id": k + 1, "isthing": k < 8, "category_id": k}
                for k in np.unique(labels).tolist()
            ]
            ids = torch.from_numpy(labels.astype(np.int32) + 1)
            yield {"image_id": i, "file_name": f"{i}.jpg"}, {"panoptic_seg": (ids, segments)}

    return predictions()


SCENES: dict[str, Callable[[Path, int, str], Pairs]] = {
    "instances": instances,
    "semantic": semantic,
    "panoptic": panoptic,
}
