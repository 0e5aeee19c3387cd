#!/usr/bin/env python3
"""Derives COCO's stuff maps, in which all things are one class, for Panoptic FPN.

Reads  $DETECTRON2_DATASETS/coco/annotations/panoptic_{val,train}2017.json and
       $DETECTRON2_DATASETS/coco/panoptic_{val,train}2017/*.png
writes $DETECTRON2_DATASETS/coco/panoptic_stuff_{val,train}2017/*.png: 0 for any thing, 1..53 for
stuff, 255 where nothing is labelled. Only coco_2017_*_panoptic_{separated,stuffonly} need them;
Mask2Former itself does not. Where annotations/panoptic_val2017_100.json lies (detectron2's 100
images for quick tests), its folders are made too. It can be interrupted and run again.
"""

import sys

from mask2former.data.catalogs import load_table
from mask2former.data.preparation import for_splits, make_parser, run
from mask2former.data.preparation.files import finished, link_or_copy, need, read_json
from mask2former.data.semantic_from_panoptic import write_semantic_maps

EXAMPLES = """examples:
  python datasets/prepare_panoptic_fpn.py
  python datasets/prepare_panoptic_fpn.py --splits val2017
"""
REMEDY = (
    "Download panoptic_annotations_trainval2017.zip from https://cocodataset.org/#download, unpack "
    "it in coco/ and the two archives of PNGs inside, too."
)


def prepare(args, options) -> None:
    """Converts each split and says what was written."""
    coco = options.root / "coco"
    rows = load_table("coco_panoptic")
    stuff = [row["id"] for row in rows if not row["isthing"]]
    labels = {row["id"]: 0 for row in rows} | {c: i for i, c in enumerate(stuff, start=1)}

    def convert(split: str) -> None:
        panoptic_json = coco / "annotations" / f"panoptic_{split}.json"
        if split == "val2017_100" and panoptic_json.exists():
            link_hundred(panoptic_json)
        output = coco / f"panoptic_stuff_{split}"
        written = write_semantic_maps(
            panoptic_json,
            coco / f"panoptic_{split}",
            output,
            labels,
            workers=options.workers,
            progress=options.progress,
            overwrite=options.overwrite,
            remedy=REMEDY,
        )
        options.say(f"{output}: {written} maps written, the others were there.")

    def link_hundred(panoptic_json) -> None:
        """Its PNGs are some of val2017's."""
        folder = coco / "panoptic_val2017_100"
        done = finished(folder)
        for annotation in read_json(panoptic_json)["annotations"]:
            name = annotation["file_name"]
            if name not in done:
                source = need(coco / "panoptic_val2017" / name, "a PNG of val2017", REMEDY)
                link_or_copy(source, folder / name)

    splits = list(args.splits)
    if (coco / "annotations" / "panoptic_val2017_100.json").exists():
        splits.append("val2017_100")
    for_splits(splits, convert)


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    return run(make_parser(__doc__, EXAMPLES, splits=("val2017", "train2017")), prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
