#!/usr/bin/env python3
"""Makes Cityscapes' label maps of train ids and its panoptic files.

Reads  $DETECTRON2_DATASETS/cityscapes/gtFine/{train,val,test}/*/*_{polygons.json,instanceIds.png}
and writes beside them *_gtFine_labelTrainIds.png, and
       $DETECTRON2_DATASETS/cityscapes/gtFine/cityscapes_panoptic_{train,val,test}/*.png and .json.
cityscapes_fine_sem_seg_* need the first, cityscapes_fine_panoptic_* both. Files equal those that
createTrainIdLabelImgs and createPanopticImgs of cityscapesscripts make, byte for byte; this script
uses all cores and can be interrupted and run again.
"""

import sys
from pathlib import Path

from mask2former.data.preparation import for_splits, make_parser, run
from mask2former.data.preparation.cityscapes import SPLITS, write_label_maps, write_panoptic

EXAMPLES = """examples:
  python datasets/prepare_cityscapes.py
  python datasets/prepare_cityscapes.py --splits val
"""


def prepare(args, options) -> None:
    """Prepares each split and says what was written."""
    splits = args.splits or [s for s in SPLITS if (gt_fine(options) / s).is_dir()]

    def both(split: str) -> None:
        write_label_maps(split, options)
        write_panoptic(split, options)

    for_splits(splits or SPLITS[:2], both)


def gt_fine(options) -> Path:
    """Folder of the fine annotations."""
    return options.root / "cityscapes" / "gtFine"


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    parser = make_parser(__doc__, EXAMPLES)
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=SPLITS,
        metavar="SPLIT",
        help="only these (default: those of train, val and test that are there)",
    )
    return run(parser, prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
