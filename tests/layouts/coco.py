"""COCO 2017 as downloaded: images, instances and panoptic annotations, PNG folders unpacked."""

from pathlib import Path
from typing import Any

import numpy as np

from .files import (
    coco_annotation,
    panoptic_categories,
    panoptic_segments,
    save_json,
    save_picture,
    split_rows,
    table,
    to_rgb,
)
from .scene import draw_scene

# Image ids that COCO 2017 has.
IMAGE_IDS = {
    "train": [9, 25, 30, 34, 36, 42, 49, 61],
    "val": [139, 285, 632, 724, 776, 785, 802, 872],
}


def write_coco(root: Path, seed: int = 0, images: int = 2) -> None:
    """Writes ``<root>/coco``; the third image of each split has no things.

    Args:
        images: for each of train and val, at most 8.
    """
    rows = table("coco_panoptic")
    stuff, things = split_rows(rows)
    folder = Path(root) / "coco"
    for split_number, (split, image_ids) in enumerate(IMAGE_IDS.items()):
        instances: list[dict[str, Any]] = []
        panoptic: list[dict[str, Any]] = []
        listed = []
        for i, image_id in enumerate(image_ids[:images]):
            rng = np.random.default_rng([seed, split_number, i])
            scene = draw_scene(
                [seed, split_number, i],
                stuff=len(stuff),
                things=len(things),
                objects=0 if i == 2 else 6,
                crowd=i == 0,
            )
            listed.append(_image(image_id, split, scene.owner.shape))
            save_picture(folder / f"{split}2017" / f"{image_id:012d}.jpg", scene.image)
            ids, segments = panoptic_segments(scene, stuff, things, rng)
            save_picture(folder / f"panoptic_{split}2017" / f"{image_id:012d}.png", to_rgb(ids))
            panoptic.append(
                {
                    "segments_info": segments,
                    "file_name": f"{image_id:012d}.png",
                    "image_id": image_id,
                }
            )
            for k, shape in enumerate(scene.shapes):
                if shape.isthing:
                    # Crowds have ids of this form: 9000 and category before the image id.
                    number = 1000 * image_id + k if not shape.crowd else 900100000000 + image_id
                    category = things[shape.label]["id"]
                    instances.append(
                        coco_annotation(
                            scene.mask(k), number, image_id, category, crowd=shape.crowd
                        )
                    )
        head = {"info": _INFO, "licenses": _LICENSES, "images": listed}
        thing_rows = [
            {"supercategory": r["name"], "id": r["id"], "name": r["name"]} for r in things
        ]
        save_json(
            folder / "annotations" / f"instances_{split}2017.json",
            {**head, "annotations": instances, "categories": thing_rows},
        )
        save_json(
            folder / "annotations" / f"panoptic_{split}2017.json",
            {**head, "annotations": panoptic, "categories": panoptic_categories(rows)},
        )


_INFO = {
    "description": "COCO 2017 Dataset",
    "url": "http://cocodataset.org",
    "version": "1.0",
    "year": 2017,
    "contributor": "COCO Consortium",
    "date_created": "2017/09/01",
}
_LICENSES = [
    {
        "url": "http://creativecommons.org/licenses/by-nc-sa/2.0/",
        "id": 1,
        "name": "Attribution-NonCommercial-ShareAlike License",
    }
]


def _image(image_id: int, split: str, size: tuple[int, int]) -> dict[str, Any]:
    name = f"{image_id:012d}.jpg"
    return {
        "license": 1,
        "file_name": name,
        "coco_url": f"http://images.cocodataset.org/{split}2017/{name}",
        "height": size[0],
        "width": size[1],
        "date_captured": "2013-11-21 01:34:01",
        "flickr_url": f"http://farm9.staticflickr.com/8035/{image_id}_z.jpg",
        "id": image_id,
    }
