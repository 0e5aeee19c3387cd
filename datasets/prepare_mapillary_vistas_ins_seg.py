#!/usr/bin/env python3
"""Makes the instance annotations of Mapillary Vistas v1.2 (37 classes) in COCO's format.

Reads  $DETECTRON2_DATASETS/mapillary_vistas/{training,validation}/{images,instances}/ and
writes $DETECTRON2_DATASETS/mapillary_vistas/mapillary_vistas_instance_{train,val}.json. The
datasets mapillary_vistas_instance_seg_{train,val} need them. It can be interrupted and run again.

A value of instances/*.png is 256 times the label plus the number of the instance. Category ids are
those of panoptic_2018.json (label plus 1), image ids the stems of the files. The folder may also be
called mapillary-vistas.
"""

import sys

from mask2former.data.preparation import for_splits, make_parser, run
from mask2former.data.preparation.mapillary import SPLITS, write_instances

EXAMPLES = """examples:
  python datasets/prepare_mapillary_vistas_ins_seg.py
  python datasets/prepare_mapillary_vistas_ins_seg.py --splits validation --workers 4
"""


def prepare(args, options) -> None:
    """Prepares each split and says what was written."""
    for_splits(args.splits, lambda split: write_instances(split, options))


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    return run(make_parser(__doc__, EXAMPLES, splits=tuple(SPLITS)), prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
