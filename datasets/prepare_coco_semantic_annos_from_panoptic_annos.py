#!/usr/bin/env python3
"""Derives COCO's semantic label maps from its panoptic annotations.

Reads  $DETECTRON2_DATASETS/coco/annotations/panoptic_{val,train}2017.json and
       $DETECTRON2_DATASETS/coco/panoptic_{val,train}2017/*.png
writes $DETECTRON2_DATASETS/coco/panoptic_semseg_{val,train}2017/*.png, with the row number of the
class in the list of 133 (0..132) and 255 where nothing is labelled. The datasets
coco_2017_{train,val}_panoptic_with_sem_seg need them. It can be interrupted and run again.
"""

import sys

from mask2former.data.catalogs import load_table
from mask2former.data.preparation import for_splits, make_parser, run
from mask2former.data.semantic_from_panoptic import write_semantic_maps

EXAMPLES = """examples:
  python datasets/prepare_coco_semantic_annos_from_panoptic_annos.py
  python datasets/prepare_coco_semantic_annos_from_panoptic_annos.py --splits val2017 --workers 2
"""
REMEDY = (
    "Download panoptic_annotations_trainval2017.zip from https://cocodataset.org/#download, unpack "
    "it in coco/ and the two archives of PNGs inside, too."
)


def prepare(args, options) -> None:
    """Converts each split and says what was written."""
    coco = options.root / "coco"
    labels = {row["id"]: i for i, row in enumerate(load_table("coco_panoptic"))}

    def convert(split: str) -> None:
        output = coco / f"panoptic_semseg_{split}"
        written = write_semantic_maps(
            coco / "annotations" / f"panoptic_{split}.json",
            coco / f"panoptic_{split}",
            output,
            labels,
            workers=options.workers,
            progress=options.progress,
            overwrite=options.overwrite,
            remedy=REMEDY,
        )
        options.say(f"{output}: {written} maps written, the others were there.")

    for_splits(args.splits, convert)


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    return run(make_parser(__doc__, EXAMPLES, splits=("val2017", "train2017")), prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
