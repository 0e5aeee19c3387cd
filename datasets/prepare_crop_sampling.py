#!/usr/bin/env python3
"""Makes the index of crop sampling (Intra-Batch Supervision) for any set in COCO's panoptic format.

Crop sampling trains on pairs of crops that show things of one class at one size; the index says
which images have a class and which segments an image has. It is written beside the annotations, as
<name of the annotation file>_cropsampling/{images_per_class.json,panoptic_json/}.

For a registered set give its name; train on <name>_cropsampling afterwards. For your own set give
its files; declared in a config as DATASETS.CUSTOM.<name> (FORMAT: coco_panoptic), it is trained on
as <name>_cropsampling too. In both cases also set
  INPUT.DATASET_MAPPER_NAME mask_former_panoptic_cropsampling  INPUT.NEW_SAMPLING True
Cityscapes and Mapillary Vistas have the published scripts prepare_cityscapes_sampling.py and
prepare_mapillary_sampling.py in mask2former/data/datasets/; their names work here as well.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a plain checkout too

from mask2former.data.preparation import make_parser, run
from mask2former.data.preparation.sampling_sets import prepare_files, prepare_registered

EXAMPLES = """examples:
  python datasets/prepare_crop_sampling.py --dataset coco_2017_train_panoptic
  python datasets/prepare_crop_sampling.py --panoptic-json roads/panoptic_train.json \\
      --images roads/train --masks roads/panoptic_train
"""


def prepare(args: argparse.Namespace, options) -> None:
    """Indexes the set."""
    if args.dataset is not None:
        prepare_registered(args.dataset, options)
    else:
        prepare_files(args.panoptic_json, args.images, args.masks, args.sem_seg, options)


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    parser = make_parser(__doc__, EXAMPLES, root=False, workers=False)
    parser.add_argument("--dataset", metavar="NAME", help="a registered panoptic set")
    parser.add_argument("--panoptic-json", metavar="FILE", help="annotations of your own set")
    parser.add_argument("--images", metavar="DIR", help="its images")
    parser.add_argument(
        "--masks", metavar="DIR", help="its PNGs of segment ids (FILE without .json)"
    )
    parser.add_argument("--sem-seg", metavar="DIR", help="its label maps, if it has any")
    args = parser.parse_args(arguments)
    own = args.panoptic_json is not None and args.images is not None
    if own == (args.dataset is not None):
        parser.error("give either --dataset, or --panoptic-json and --images")
    return run(parser, prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
