"""Panoptic ground truth and imperfect predictions as files, in COCO's format."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from .scenes import SIZE, blob

SEGMENTS = 15
CATEGORIES = 20


def write_pairs(folder: Path, images: int) -> tuple[str, str]:
    """Writes ``images`` pairs and returns the two JSON files, with PNG folders beside them.

    Predictions are the ground truth moved by a few pixels, with some wrong categories and some
    segments missing; some ground truth is a crowd.
    """
    rng = np.random.default_rng(0)
    annotations: dict[str, list[dict]] = {"truth": [], "predictions": []}
    for kind in annotations:
        (folder / kind).mkdir()
    for image in range(images):
        labels = np.zeros(SIZE, np.int64)
        for k in range(1, SEGMENTS + 1):
            labels[blob(rng) > 0] = k
        categories = rng.integers(1, CATEGORIES + 1, SEGMENTS + 1)
        crowd = rng.random(SEGMENTS + 1) < 0.1
        moved = np.roll(labels, rng.integers(-12, 13, 2), (0, 1))
        moved[np.isin(moved, rng.integers(1, SEGMENTS + 1, 2))] = 0
        guessed = np.where(rng.random(SEGMENTS + 1) < 0.1, categories % CATEGORIES + 1, categories)
        for kind, ids, of in (
            ("truth", labels, categories),
            ("predictions", moved, guessed),
        ):
            name = f"{image:05d}.png"
            ids = ids * 1237  # spread over the three bytes, as COCO's ids are
            rgb = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], -1)
            Image.fromarray(rgb.astype(np.uint8)).save(folder / kind / name)
            segments = [
                {
                    "id": int(i),
                    "category_id": int(of[i // 1237]),
                    "area": int((ids == i).sum()),
                    "iscrowd": int(kind == "truth" and crowd[i // 1237]),
                }
                for i in np.unique(ids)
                if i
            ]
            annotations[kind].append(
                {"image_id": image, "file_name": name, "segments_info": segments}
            )
    categories = [
        {"id": c, "name": f"class {c}", "isthing": c % 2} for c in range(1, CATEGORIES + 1)
    ]
    for kind, entries in annotations.items():
        content = {"images": [{"id": i} for i in range(images)], "annotations": entries}
        (folder / f"{kind}.json").write_text(json.dumps(content | {"categories": categories}))
    return str(folder / "truth.json"), str(folder / "predictions.json")
