"""Registers every dataset of this project under its published name when imported.

Each ``register_*`` module declares one family of sets; `declare` does the registering, `records`
the reading and `folders` knows what is expected where. The root is ``$DETECTRON2_DATASETS``
(default ``./datasets``), read when this package is imported.
"""

from . import (  # noqa: F401 - imported for what they register
    register_ade20k_full,
    register_ade20k_instance,
    register_ade20k_panoptic,
    register_coco_panoptic_annos_semseg,
    register_coco_stuff_10k,
    register_mapillary_vistas,
    register_mapillary_vistas_instance,
    register_mapillary_vistas_panoptic,
    register_safetybarrier_instance,
    register_shapes,
)
from .folders import dataset_root, require_dataset_files
from .register_crop_sampling import register_crop_sampling  # needs the sets that are above
from .register_shapes import register_all_shapes

__all__ = [
    "dataset_root",
    "register_all_shapes",
    "register_crop_sampling",
    "require_dataset_files",
]
