"""LVIS v1: one json per split over the images of COCO 2017, some of val lie in train2017."""

from pathlib import Path
from typing import Any

from .coco import IMAGE_IDS
from .files import coco_annotation, save_json, save_picture
from .scene import draw_scene

CLASSES = 1203


def write_lvis(root: Path, seed: int = 0, images: int = 2) -> None:
    """Writes ``<root>/lvis/lvis_v1_{train,val}.json`` and the images under ``<root>/coco``.

    Other image ids than those of `write_coco`, so that both may lie in one root. Images name
    their folder only in ``coco_url``; ``file_name`` is absent, and the last val image is one of
    train2017, as in the published files.
    """
    root = Path(root)
    for split_number, split in enumerate(("train", "val")):
        listed, annotations = [], []
        for i, number in enumerate(IMAGE_IDS[split][:images]):
            image_id = 500000 + number
            source = "train2017" if split == "val" and i == images - 1 else f"{split}2017"
            scene = draw_scene([seed, 7, split_number, i], stuff=50, things=CLASSES)
            name = f"{image_id:012d}.jpg"
            save_picture(root / "coco" / source / name, scene.image)
            present = sorted({s.label + 1 for s in scene.shapes if s.isthing})
            listed.append(
                {
                    "date_captured": "2013-11-14 16:28:13",
                    "neg_category_ids": [c for c in (3, 17, 899) if c not in present],
                    "license": 4,
                    "height": scene.owner.shape[0],
                    "width": scene.owner.shape[1],
                    "flickr_url": f"http://farm7.staticflickr.com/6157/{image_id}_z.jpg",
                    "coco_url": f"http://images.cocodataset.org/{source}/{name}",
                    "not_exhaustive_category_ids": [],
                    "id": image_id,
                }
            )
            for k, shape in enumerate(scene.shapes):
                if shape.isthing:
                    entry = coco_annotation(
                        scene.mask(k), len(annotations) + 1, image_id, shape.label + 1
                    )
                    del entry["iscrowd"]  # LVIS has none
                    annotations.append(entry)
        save_json(
            root / "lvis" / f"lvis_v1_{split}.json",
            {
                "info": {"description": "LVIS v1", "version": "1", "year": 2020},
                "annotations": annotations,
                "images": listed,
                "licenses": [{"id": 4, "name": "Attribution License", "url": ""}],
                "categories": [_category(i) for i in range(1, CLASSES + 1)],
            },
        )


def _category(number: int) -> dict[str, Any]:
    """Real field names; the 1203 names themselves are not stored in this repository."""
    name = f"object_{number}"
    return {
        "image_count": number,
        "synonyms": [name],
        "def": "a tiny stand-in",
        "id": number,
        "synset": f"{name}.n.01",
        "name": name,
        "frequency": "rcf"[number % 3],
        "instance_count": number,
    }
