#!/usr/bin/env python3
"""Derives COCO's semantic label maps from its panoptic annotations.

Reads  $DETECTRON2_DATASETS/coco/annotations/panoptic_{val,train}2017.json and
       $DETECTRON2_DATASETS/coco/panoptic_{val,train}2017/*.png
writes $DETECTRON2_DATASETS/coco/panoptic_semseg_{val,train}2017/*.png, with the row number of the
class in the list of 133 (0..132) and 255 where nothing is labelled. The datasets
coco_2017_{train,val}_panoptic_with_sem_seg need them. It can be interrupted and run again.
"""

import argparse
import os
import sys
from pathlib import Path

from mask2former.data.catalogs import load_table
from mask2former.data.datasets import dataset_root
from mask2former.data.semantic_from_panoptic import write_semantic_maps


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line (``sys.argv`` by default)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, help="folder that contains coco/ ($DETECTRON2_DATASETS)", metavar="DIR"
    )
    parser.add_argument(
        "--splits", nargs="+", default=["val2017", "train2017"], help="(val2017 train2017)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Converts each split and says what was written; returns the exit status."""
    args = parse_arguments(arguments)
    coco = (args.root or Path(dataset_root())) / "coco"
    labels = {row["id"]: i for i, row in enumerate(load_table("coco_panoptic"))}
    for split in args.splits:
        output = coco / f"panoptic_semseg_{split}"
        try:
            written = write_semantic_maps(
                coco / "annotations" / f"panoptic_{split}.json",
                coco / f"panoptic_{split}",
                output,
                labels,
                workers=args.workers,
                progress=not args.quiet,
            )
        except (OSError, ValueError) as error:
            print(f"prepare_coco_semantic: {error}", file=sys.stderr)
            return 1
        print(f"{output}: {written} maps written, the others were there.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
