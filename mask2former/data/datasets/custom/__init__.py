"""Data sets declared in YAML: no Python needed.

    DATASETS:
      CUSTOM:
        barrier_train:                       # the name; any number of entries
          FORMAT: coco_instance              # see below
          IMAGES: data/barrier/images
          ANNOTATIONS: data/barrier/train.json
          CLASSES: ["rail_top", "rail_mid"]  # optional: left out, they are read from the file
      TRAIN: ("barrier_train",)

Formats: ``coco_instance``, ``coco_panoptic``, ``semantic`` (label maps in a folder), ``yolo``
(segmentation labels and data.yaml) and ``cvat`` (CVAT for images 1.1; task, job or project export).
Each is a function of a `Spec` in a file of its own and one line in `FORMATS`. Relative paths are
relative to the working directory. A set without a split of its own is divided by ``PART: train``
or ``val`` and ``VAL_SHARE``.
"""

from .registration import FORMATS, complete_entries, register_custom_datasets
from .spec import CustomDatasetError, Spec

__all__ = ["FORMATS", "CustomDatasetError", "Spec", "complete_entries", "register_custom_datasets"]
