"""Which files the index of crop sampling is made from, for registered sets and a user's own."""

import os
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..datasets.folders import remedy
from ..datasets.register_crop_sampling import sampling_index
from .command import Options
from .crop_sampling import cityscapes_source, folder_source, write_index
from .errors import PreparationError


def prepare_registered(name: str, options: Options) -> None:
    """Indexes a registered panoptic set, where ``<name>_cropsampling`` will look for the index.

    Raises:
        PreparationError: it is not registered, or not a panoptic set.
    """
    if name not in DatasetCatalog.list() or not MetadataCatalog.get(name).get("panoptic_json"):
        raise PreparationError(
            f"--dataset {name}: no such panoptic set is registered; `python tools/datasets.py list "
            "panoptic` shows those that are. Your own set is given by --panoptic-json and --images."
        )
    metadata = MetadataCatalog.get(name)
    target = f"{name}_cropsampling"
    if target in DatasetCatalog.list():
        chosen = MetadataCatalog.get(target)
        index = (chosen.images_per_cat_json, chosen.json_per_img_dir)
    else:
        index = sampling_index(metadata.panoptic_json)
    if metadata.evaluator_type == "cityscapes_panoptic_seg":
        root = Path(metadata.image_root).parents[2]
        source = cityscapes_source(root, os.path.basename(metadata.image_root))
    else:
        source = folder_source(
            metadata.panoptic_json,
            metadata.panoptic_root,
            metadata.image_root,
            metadata.get("sem_seg_root"),
        )
    write_index(source, *map(Path, index), options, remedy(name))
    if target not in DatasetCatalog.list():
        options.say(f'Register it with: register_crop_sampling("{target}", "{name}")')


def prepare_files(
    panoptic_json: str, images: str, masks: str | None, sem_seg: str | None, options: Options
) -> None:
    """Indexes a set in COCO's panoptic format that is not registered.

    Args:
        panoptic_json: its annotations.
        images: folder of the images, in any format.
        masks: folder of the PNGs; by default ``panoptic_json`` without ``.json``.
        sem_seg: folder of label maps, if there are any.
        options: shows a bar.
    """
    masks = masks or os.path.splitext(panoptic_json)[0]
    source = folder_source(panoptic_json, masks, images, sem_seg)
    write_index(
        source,
        *map(Path, sampling_index(panoptic_json)),
        options,
        "Check the folders that were given.",
    )
