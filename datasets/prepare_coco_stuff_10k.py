#!/usr/bin/env python3
"""Makes the label maps of COCO-Stuff-10K v1.1 (171 classes).

Reads  $DETECTRON2_DATASETS/coco/coco_stuff_10k/{images/*.jpg,annotations/*.mat,imageLists/} and
writes $DETECTRON2_DATASETS/coco/coco_stuff_10k/annotations_detectron2/{train,test}/*.png with
classes 0..170 and 255 where nothing is labelled, and the images once more, as hard links where
possible, in images_detectron2/{train,test}/. The datasets
coco_2017_{train,test}_stuff_10k_sem_seg need them. It can be interrupted and run again.
"""

import sys

from mask2former.data.preparation import for_splits, make_parser, run
from mask2former.data.preparation.coco_stuff import SPLITS, write_stuff_10k

EXAMPLES = """examples:
  python datasets/prepare_coco_stuff_10k.py
  python datasets/prepare_coco_stuff_10k.py --splits test
"""


def prepare(args, options) -> None:
    """Prepares each split and says what was written."""
    for_splits(args.splits, lambda split: write_stuff_10k(split, options))


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    return run(make_parser(__doc__, EXAMPLES, splits=tuple(SPLITS)), prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
