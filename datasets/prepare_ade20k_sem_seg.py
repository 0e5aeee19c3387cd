#!/usr/bin/env python3
"""Shifts the label maps of ADE20K (150 classes) for training.

Reads  $DETECTRON2_DATASETS/ADEChallengeData2016/annotations/{training,validation}/*.png and
writes $DETECTRON2_DATASETS/ADEChallengeData2016/annotations_detectron2/{training,validation}/*.png
with every value minus 1: classes are 0..149, and "other" (0) becomes 255, which is ignored. The
datasets ade20k_sem_seg_{train,val} and ade20k_panoptic_{train,val} need them. It can be interrupted
and run again.
"""

import sys

from mask2former.data.preparation import for_splits, make_parser, run
from mask2former.data.preparation.ade20k import SPLITS, write_semantic

EXAMPLES = """examples:
  python datasets/prepare_ade20k_sem_seg.py
  python datasets/prepare_ade20k_sem_seg.py --splits validation --workers 2
"""


def prepare(args, options) -> None:
    """Prepares each split and says what was written."""
    for_splits(args.splits, lambda split: write_semantic(split, options))


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    return run(make_parser(__doc__, EXAMPLES, splits=tuple(SPLITS)), prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
