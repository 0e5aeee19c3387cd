#!/usr/bin/env python
"""Trains and evaluates Mask2Former: the DiNAT repository's name for train_net.py.

Same options; DiNAT needs no preparations here.

    python train_m2f.py --num-gpus 8 --config-file CONFIG [KEY VALUE ...]

Unlike the original it runs from any folder, and data sets are looked for where train_net.py looks:
under DETECTRON2_DATASETS, by default ./datasets (the original: M2F/datasets).
"""

from detectron2.engine import default_argument_parser
from mask2former.engine import run
from train_net import main

if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    print("Command Line Args:", args)
    run(main, args)
