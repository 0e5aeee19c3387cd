"""Mapillary Vistas v1.2: instances in COCO's format, and the folder's two names.

Mask2Former's README names prepare_mapillary_vistas_ins_seg.py, but its repository has no such
script; what is written here is our own choice, see `write_instances`.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..catalogs import load_table
from ..datasets.folders import mapillary_folder
from .command import Options
from .errors import PreparationError
from .files import is_complete, need, read_labels, save_json
from .parallel import Journal, collect
from .segments import describe_segments, encode_segments

SPLITS = {"training": "train", "validation": "val"}
DOWNLOAD = (
    "Download Mapillary Vistas v1.2 from https://www.mapillary.com/dataset/vistas and unpack it "
    "into mapillary_vistas (or mapillary-vistas) in the folder of all data sets."
)


def write_instances(split: str, options: Options) -> None:
    """Makes ``mapillary_vistas/mapillary_vistas_instance_<split>.json``, COCO's instance format.

    A value of ``instances/*.png`` (16 bit) is 256 times the label plus the number of the instance.
    Only the 37 labels whose instances are told apart are taken. A category has the id that it has
    in ``panoptic_2018.json`` (the label plus 1), so ids have gaps; the image id is the file's stem,
    as there. Masks are compressed run lengths, boxes inclusive, there are no crowds.

    Args:
        split: "training" or "validation".
        options: root, processes.

    Raises:
        MissingInput: the set is not there.
        PreparationError: a picture is broken (names it).
    """
    folder = Path(mapillary_folder(str(options.root)))
    images = need(folder / split / "images", "the images of Mapillary Vistas", DOWNLOAD)
    source = need(folder / split / "instances", "its instance maps (version 1.2)", DOWNLOAD)
    stems = {path.stem: path.stem for path in sorted(images.glob("*.jpg"))}
    summary = folder / f"mapillary_vistas_instance_{SPLITS[split]}.json"
    if not options.overwrite and is_complete(summary, stems):
        options.say(f"{summary}: there, with {len(stems)} images; nothing to do.")
        return
    results = collect(partial(_instances_of_image, source), stems, options, summary)
    annotations = [a for entry in results for a in entry["annotations"]]
    content = {
        "images": [entry["image"] for entry in results],
        "categories": [
            {"id": row["id"], "name": row["name"], "supercategory": row["supercategory"]}
            for row in load_table("mapillary_panoptic")
            if row["isthing"]
        ],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
    }
    save_json(summary, content)
    Journal.remove(summary)
    options.say(f"{summary}: {len(stems)} images, {len(annotations)} instances.")


def _instances_of_image(source: Path, stem: str) -> tuple[str, dict[str, Any]]:
    path = source / f"{stem}.png"
    coded = read_labels(path)
    if coded.ndim != 2 or coded.max() >= 66 * 256:
        raise PreparationError(
            f"{os.path.abspath(path)} is no instance map of version 1.2 (label * 256 + number, "
            f"labels 0..65); {DOWNLOAD}"
        )
    coded = coded.astype(np.uint16)
    height, width = coded.shape
    things = {row["id"] - 1 for row in load_table("mapillary_panoptic") if row["isthing"]}
    segments = [s for s in describe_segments(coded) if s.value // 256 in things]
    runs = encode_segments(coded, [s.value for s in segments])
    annotations = [
        {
            "image_id": stem,
            "iscrowd": 0,
            "category_id": s.value // 256 + 1,
            "bbox": s.bbox,
            "segmentation": runs[s.value],
            "area": s.area,
        }
        for s in segments
    ]
    entry = {"id": stem, "file_name": f"{stem}.jpg", "width": width, "height": height}
    return stem, {"image": entry, "annotations": annotations}
