#!/usr/bin/env python3
"""Makes the index of crop sampling for Mapillary Vistas (Intra-Batch Supervision).

Reads  $DETECTRON2_DATASETS/mapillary_vistas/training/panoptic/panoptic_2018.json and
writes $DETECTRON2_DATASETS/mapillary_vistas/training/images_per_class.json and
       $DETECTRON2_DATASETS/mapillary_vistas/training/panoptic_json/<image id>.json, which
mapillary_vistas_panoptic_train_cropsampling needs. Where there is only a folder mapillary-vistas,
as the published script has it, that one is read and written, and the registered sets use it too.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))  # runs from a plain checkout too

from mask2former.data.datasets.folders import mapillary_folder
from mask2former.data.preparation import Options, make_parser, run
from mask2former.data.preparation.crop_sampling import folder_source, write_index

EXAMPLES = """example:
  python mask2former/data/datasets/prepare_mapillary_sampling.py
"""
REMEDY = (
    "Download Mapillary Vistas v1.2 from https://www.mapillary.com/dataset/vistas and unpack it "
    "into mapillary_vistas in the folder of all data sets."
)


def prepare(args: argparse.Namespace, options: Options) -> None:
    """Indexes the training images."""
    folder = os.path.join(mapillary_folder(str(options.root)), "training")
    panoptic = os.path.join(folder, "panoptic")
    source = folder_source(
        os.path.join(panoptic, "panoptic_2018.json"),
        panoptic,
        os.path.join(folder, "images"),
        os.path.join(folder, "labels"),
    )
    write_index(
        source,
        Path(folder, "images_per_class.json"),
        Path(folder, "panoptic_json"),
        options,
        REMEDY,
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the script; returns the exit status."""
    return run(make_parser(__doc__, EXAMPLES, workers=False), prepare, arguments)


if __name__ == "__main__":
    sys.exit(main())
