"""Every tiny data set at once."""

from collections.abc import Callable
from pathlib import Path

from .ade20k import write_ade20k, write_ade20k_full
from .cityscapes import write_cityscapes
from .coco import write_coco
from .coco_stuff import write_coco_stuff_10k
from .lvis import write_lvis
from .mapillary import write_mapillary
from .safetybarrier import write_safetybarrier

WRITERS: dict[str, Callable[..., None]] = {
    "coco": write_coco,
    "coco_stuff_10k": write_coco_stuff_10k,
    "ade20k": write_ade20k,
    "ade20k_full": write_ade20k_full,
    "cityscapes": write_cityscapes,
    "mapillary": write_mapillary,
    "lvis": write_lvis,
    "safetybarrier": write_safetybarrier,
}


def write_all(root: Path, seed: int = 0, images: int = 2) -> None:
    """Writes what is downloaded for every set; preparation is up to the caller."""
    for write in WRITERS.values():
        write(root, seed=seed, images=images)
