#!/usr/bin/env python3
"""Makes the index of crop sampling for Cityscapes (Intra-Batch Supervision).

Reads  $DETECTRON2_DATASETS/cityscapes/gtFine/cityscapes_panoptic_train.json and
writes $DETECTRON2_DATASETS/cityscapes/images_per_class_train.json and
       $DETECTRON2_DATASETS/cityscapes/panoptic_json_train/<image id>.json, which
cityscapes_fine_panoptic_train_cropsampling needs. Before it, run datasets/prepare_cityscapes.py.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # runs from a plain checkout too

from mask2former.data.preparation import Options, make_parser, run
from mask2former.data.preparation.crop_sampling import cityscapes_source, write_index

EXAMPLES = """example:
  python mask2former/data/datasets/prepare_cityscapes_sampling.py
"""
REMEDY = (
    "Download leftImg8bit and gtFine of Cityscapes (https://www.cityscapes-dataset.com/) into "
    "cityscapes, then run: python datasets/prepare_cityscapes.py"
)


def prepare(args: argparse.Namespace, options: Options) -> None:
    """Indexes the training images."""
    folder = options.root / "cityscapes"
    write_index(
        cityscapes_source(options.root, "train"),
        folder / "images_per_class_train.json",
        folder / "panoptic_json_train",
        options,
        REMEDY,
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    return run(make_parser(__doc__, EXAMPLES, workers=False), prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
