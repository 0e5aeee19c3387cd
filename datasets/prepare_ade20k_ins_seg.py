#!/usr/bin/env python3
"""Makes ADE20K's instance annotations (100 classes) in COCO's format.

Reads  $DETECTRON2_DATASETS/ADEChallengeData2016/{images,annotations_instance}/ and
writes $DETECTRON2_DATASETS/ADEChallengeData2016/ade20k_instance_{train,val}.json. The datasets
ade20k_instance_{train,val} need them, and ade20k_panoptic_{train,val} for instance AP. It can be
interrupted and run again.

datasets/ade20k_instance_catid_mapping.txt and ade20k_instance_imgCatIds.json are used where they
lie; the same mapping and names are built in.
"""

import sys

from mask2former.data.preparation import for_splits, make_parser, run
from mask2former.data.preparation.ade20k import SPLITS, write_instances

EXAMPLES = """examples:
  python datasets/prepare_ade20k_ins_seg.py
  python datasets/prepare_ade20k_ins_seg.py --splits validation
"""


def prepare(args, options) -> None:
    """Prepares each split and says what was written."""
    for_splits(args.splits, lambda split: write_instances(split, options))


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    return run(make_parser(__doc__, EXAMPLES, splits=tuple(SPLITS)), prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
