#!/usr/bin/env python3
"""Makes ADE20K's panoptic annotations (100 thing and 50 stuff classes).

Reads  $DETECTRON2_DATASETS/ADEChallengeData2016/{images,annotations,annotations_instance}/ and
writes $DETECTRON2_DATASETS/ADEChallengeData2016/ade20k_panoptic_{train,val}/*.png and .json, in
COCO's panoptic format. The datasets ade20k_panoptic_{train,val} need them. It can be interrupted
and run again.

Further segments of a class get random colours, as in the published script, but with a seed: two
runs make the same files. datasets/ade20k_instance_catid_mapping.txt is used where it lies; the same
mapping is built in.
"""

import sys

from mask2former.data.preparation import for_splits, make_parser, run
from mask2former.data.preparation.ade20k import SPLITS, write_panoptic

EXAMPLES = """examples:
  python datasets/prepare_ade20k_pan_seg.py
  python datasets/prepare_ade20k_pan_seg.py --splits validation
  python datasets/prepare_ade20k_pan_seg.py --seed 1 --overwrite      other colours
"""


def prepare(args, options) -> None:
    """Prepares each split and says what was written."""
    for_splits(args.splits, lambda split: write_panoptic(split, options, args.seed))


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    parser = make_parser(__doc__, EXAMPLES, splits=tuple(SPLITS))
    parser.add_argument("--seed", type=int, default=0, help="of the segments' colours (0)")
    return run(parser, prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
