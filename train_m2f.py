#!/usr/bin/env python
"""Trains and evaluates Mask2Former: the DiNAT repository's name for train_net.py.

Same options; DiNAT needs no preparations here.

    python train_m2f.py --num-gpus 8 --config-file CONFIG [KEY VALUE ...]

Unlike the original it runs from any folder. Data sets are under DETECTRON2_DATASETS; where that is
not set, in M2F/datasets if there is such a folder, as in the original, else in ./datasets.
"""

import os

if "DETECTRON2_DATASETS" not in os.environ and os.path.isdir("M2F/datasets"):
    os.environ["DETECTRON2_DATASETS"] = "M2F/datasets"  # is read when mask2former is imported

from detectron2.engine import default_argument_parser
from mask2former.engine import run
from train_net import main

if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    print("Command Line Args:", args)
    run(main, args)
