#!/usr/bin/env python3
"""Makes the label maps of the full ADE20K (847 classes).

Reads  $DETECTRON2_DATASETS/ADE20K_2021_17_01/index_ade20k.pkl and the images it lists with their
       *_seg.png and
writes $DETECTRON2_DATASETS/ADE20K_2021_17_01/annotations_detectron2/{training,validation}/*.tif, 16
bit with classes 0..846 and 65535 elsewhere (deflated, without loss), and the images once more, as
hard links where possible, in images_detectron2/{training,validation}/. The datasets
ade20k_full_sem_seg_{train,val} need them. It can be interrupted and run again.
"""

import sys

from mask2former.data.preparation import for_splits, make_parser, run
from mask2former.data.preparation.ade20k_full import SPLITS, write_full_semantic

EXAMPLES = """examples:
  python datasets/prepare_ade20k_full_sem_seg.py
  python datasets/prepare_ade20k_full_sem_seg.py --splits validation --workers 2
"""


def prepare(args, options) -> None:
    """Prepares each split and says what was written."""
    for_splits(args.splits, lambda split: write_full_semantic(split, options))


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    return run(make_parser(__doc__, EXAMPLES, splits=tuple(SPLITS)), prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
