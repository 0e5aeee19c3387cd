"""The safety-barrier set: COCO instance json as CVAT exports it."""

from pathlib import Path

from .files import coco_annotation, save_json, save_picture
from .scene import draw_scene

CLASSES = ["rail_top", "rail_mid", "toeboard", "vertical_post"]


def write_safetybarrier(root: Path, seed: int = 0, images: int = 2) -> None:
    """Writes ``<root>/safetybarrier/{images/{train,val},annotations/instances_*.json}``."""
    folder = Path(root) / "safetybarrier"
    for number, split in enumerate(("train", "val")):
        listed, annotations = [], []
        for i in range(images):
            scene = draw_scene([seed, 8, number, i], stuff=3, things=len(CLASSES))
            name = f"site_{split}_{i:04d}.jpg"
            save_picture(folder / "images" / split / name, scene.image)
            height, width = scene.owner.shape
            listed.append(
                {
                    "id": i + 1,
                    "width": width,
                    "height": height,
                    "file_name": name,
                    "license": 0,
                    "flickr_url": "",
                    "coco_url": "",
                    "date_captured": 0,
                }
            )
            for k, shape in enumerate(scene.shapes):
                if shape.isthing:
                    entry = coco_annotation(
                        scene.mask(k), len(annotations) + 1, i + 1, shape.label + 1
                    )
                    annotations.append({**entry, "attributes": {"occluded": False}})
        save_json(
            folder / "annotations" / f"instances_{split}.json",
            {
                "licenses": [{"name": "", "id": 0, "url": ""}],
                "info": {"contributor": "", "date_created": "", "description": ""},
                "categories": [
                    {"id": i + 1, "name": name, "supercategory": ""}
                    for i, name in enumerate(CLASSES)
                ],
                "images": listed,
                "annotations": annotations,
            },
        )
