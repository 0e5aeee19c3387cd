"""Registers what ``DATASETS.CUSTOM`` declares."""

import logging
from collections.abc import Callable
from dataclasses import fields

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...dataset_mappers.reading import depth_warning
from ..declare import replace_metadata
from ..register_crop_sampling import register_crop_sampling
from .coco import register_coco_instance, register_coco_panoptic
from .cvat import register_cvat
from .semantic import register_semantic
from .spec import CustomDatasetError, Spec
from .yolo import register_yolo

logger = logging.getLogger(__name__)

_LOOKED_AT = 500  # images of a set, about

FORMATS: dict[str, Callable[[Spec], None]] = {
    "coco_instance": register_coco_instance,
    "coco_panoptic": register_coco_panoptic,
    "semantic": register_semantic,
    "yolo": register_yolo,
    "cvat": register_cvat,
}


def complete_entries(cfg: CfgNode) -> None:
    """Gives every entry all keys, so that any of them can be set on the command line."""
    defaults = {f.name.upper(): f.default for f in fields(Spec) if f.name not in ("name", "format")}
    for entry in cfg.DATASETS.CUSTOM.values():
        for key, default in defaults.items():
            if isinstance(entry, CfgNode) and key not in entry:
                entry[key] = default


def register_custom_datasets(
    cfg: CfgNode, *, used_only: bool = True, need_files: bool = True
) -> list[str]:
    """Registers the entries of ``DATASETS.CUSTOM``; an earlier set of the name is replaced.

    Args:
        cfg: a complete config.
        used_only: leave out entries that neither DATASETS.TRAIN nor DATASETS.TEST names; their
            files need not exist then.
        need_files: False, for inference: where the files of a set are not at hand, only its class
            names are registered, from CLASSES.

    Returns:
        the names that were registered.

    Raises:
        CustomDatasetError: an entry cannot be used.
    """
    names = []
    custom = cfg.DATASETS.get("CUSTOM") or {}  # configs of other projects lack the key
    for name, entry in custom.items():
        used = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
        sampled = f"{name}_cropsampling"
        if used_only and name not in used and sampled not in used:
            continue
        spec = Spec.of(name, entry)
        if spec.format not in FORMATS:
            raise spec.error("FORMAT", f"{spec.format} is unknown; known are {', '.join(FORMATS)}")
        try:
            FORMATS[spec.format](spec)
            _keep_part(spec)
            _warn_of_deep_images(spec)
        except CustomDatasetError as error:
            if need_files:
                raise
            logger.info("Only the class names of %s are known: %s", name, error)
            _register_names(spec)
        names.append(name)
        if sampled in used and MetadataCatalog.get(name).get("panoptic_json"):
            register_crop_sampling(sampled, name)
            names.append(sampled)
    return names


def _keep_part(spec: Spec) -> None:
    if not spec.part:
        return
    metadata = MetadataCatalog.get(spec.name)
    if metadata.get("panoptic_json"):
        raise spec.error("PART", "needs a file for each part: panoptic evaluation reads it whole")
    load = DatasetCatalog.pop(spec.name)

    def of_part() -> list[dict]:
        records = [r for r in load() if spec.in_part(r["file_name"])]
        if not records:
            raise spec.error("PART", f"{spec.part} has no image; change VAL_SHARE {spec.val_share}")
        return records

    DatasetCatalog.register(spec.name, of_part)
    if hasattr(metadata, "json_file"):
        del metadata.json_file  # the whole file's ground truth


def _warn_of_deep_images(spec: Spec) -> None:
    load = DatasetCatalog.pop(spec.name)
    warned = False

    def with_warning() -> list[dict]:
        nonlocal warned
        records = load()
        if not warned:
            some = records[:: max(1, len(records) // _LOOKED_AT)]  # files open slowly on some disks
            warnings = [w for w in (depth_warning(r["file_name"]) for r in some) if w]
            if warnings:
                logger.warning(
                    "%s: %d of %d images looked at: %s",
                    spec.name, len(warnings), len(some), warnings[0],
                )  # fmt: skip
            warned = True
        return records

    DatasetCatalog.register(spec.name, with_warning)


def _register_names(spec: Spec) -> None:
    kind = "stuff" if spec.format == "semantic" else "thing"
    if spec.classes:
        colors = spec.with_colors(len(spec.classes))
        replace_metadata(
            spec.name, **{f"{kind}_classes": list(spec.classes), f"{kind}_colors": colors}
        )
