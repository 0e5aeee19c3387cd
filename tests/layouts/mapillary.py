"""Mapillary Vistas v1.2 as downloaded."""

from pathlib import Path

import numpy as np
from PIL import Image

from .files import (
    panoptic_categories,
    panoptic_segments,
    save_json,
    save_picture,
    split_rows,
    table,
    to_rgb,
)
from .scene import draw_scene

# File names have 22 characters that a URL may hold; a hyphen may come first.
_STEMS = {
    "training": ["00qclUcInksIYnm19b1Xfw", "-0BxuILoyfPPbmBLnGTlTw", "0035fkbjWljhaftpVM37-g"],
    "validation": ["0daE8mWajuMtwvrUZe4mYA", "_1Gn_xkw7sa_i9GU4mkxxQ", "03G8WHFnNfiJR-457i0MWQ"],
}


def write_mapillary(root: Path, seed: int = 0, images: int = 2) -> None:
    """Writes ``<root>/mapillary_vistas`` (the folder's name in the registration).

    ``labels`` are palette PNGs of 0..65, ``instances`` 16-bit PNGs of label * 256 + number from 0,
    ``panoptic`` PNGs of ids with ``panoptic_2018.json``, whose categories are label + 1.

    Args:
        images: for each split, at most 3; the third has no things.
    """
    labels = table("mapillary_semantic")
    rows = table("mapillary_panoptic")
    stuff, things = split_rows(rows)
    folder = Path(root) / "mapillary_vistas"
    palette = np.array([row["color"] for row in labels], np.uint8).ravel().tolist()
    keys = ("name", "readable", "instances", "evaluate", "color")
    save_json(
        folder / "config.json",
        {
            "version": "1.1",
            "mapping": "public",
            "folder_structure": "{split}/{content}/{key:.22}.{ext}",
            "labels": [{k: row[k] for k in keys} for row in labels],
        },
    )
    for number, (split, stems) in enumerate(_STEMS.items()):
        listed, annotations = [], []
        for i, stem in enumerate(stems[:images]):
            rng = np.random.default_rng([seed, 6, number, i])
            scene = draw_scene(
                [seed, 6, number, i],
                stuff=len(stuff),
                things=len(things),
                objects=0 if i == 2 else 6,
            )
            semantic = np.full(scene.owner.shape, 65, np.uint8)
            instances = np.full(scene.owner.shape, 65 * 256, np.uint16)
            seen: dict[int, int] = {}
            for k, shape in enumerate(scene.shapes):
                row = (things if shape.isthing else stuff)[shape.label]
                label = row["id"] - 1
                count = seen.get(label, 0) if shape.isthing else 0
                seen[label] = count + 1
                semantic[scene.mask(k)] = label
                instances[scene.mask(k)] = label * 256 + count
            ids, segments = panoptic_segments(scene, stuff, things, rng)
            save_picture(folder / split / "images" / f"{stem}.jpg", scene.image)
            save_picture(folder / split / "instances" / f"{stem}.png", instances)
            save_picture(folder / split / "panoptic" / f"{stem}.png", to_rgb(ids))
            indexed = Image.frombytes("P", semantic.shape[::-1], semantic.tobytes())
            indexed.putpalette(palette)
            (folder / split / "labels").mkdir(parents=True, exist_ok=True)
            indexed.save(folder / split / "labels" / f"{stem}.png")
            height, width = scene.owner.shape
            listed.append(
                {"id": stem, "file_name": f"{stem}.jpg", "height": height, "width": width}
            )
            annotations.append(
                {"image_id": stem, "file_name": f"{stem}.png", "segments_info": segments}
            )
        save_json(
            folder / split / "panoptic" / "panoptic_2018.json",
            {
                "info": {"description": "Mapillary Vistas v1.2", "year": 2018},
                "images": listed,
                "annotations": annotations,
                "categories": panoptic_categories(rows),
            },
        )
