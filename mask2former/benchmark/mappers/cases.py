"""Which mapper is measured on which pictures, with the augmentations of the published config."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from mask2former.engine import load_config

from .pictures import KINDS, write_index, write_pictures

# Keys that a record for each kind of ground truth does not have.
_LEFT_OUT = {
    "semantic": ("annotations", "pan_seg_file_name", "segments_info"),
    "panoptic": ("annotations",),
    "panoptic_only": ("annotations", "sem_seg_file_name"),
    "instance": ("sem_seg_file_name", "pan_seg_file_name", "segments_info"),
}


@dataclass(frozen=True)
class Case:
    """A mapper, the pictures it gets, and its config."""

    mapper: str
    pictures: str
    ground_truth: str
    overrides: tuple[Any, ...] = ()

    @property
    def dataset(self) -> str:
        """The name its pictures are registered under."""
        return f"benchmark_{self.pictures}_{self.ground_truth}"


def _cropped(sizes: Sequence[int], max_size: int, crop: Sequence[int], *more: Any) -> tuple:
    """Resize, crop and colour jitter as the Base files of ADE20K and Cityscapes have them."""
    return (
        *("INPUT.MIN_SIZE_TRAIN", tuple(sizes), "INPUT.MAX_SIZE_TRAIN", max_size),
        *("INPUT.MIN_SIZE_TRAIN_SAMPLING", "choice", "INPUT.COLOR_AUG_SSD", True),
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute"),
        *("INPUT.CROP.SIZE", list(crop), *more),
    )


def _scaled(side: int) -> list[int]:
    return [int(x * 0.1 * side) for x in range(5, 21)]


_ONE_LABEL = ("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 1.0)
_CITY = _cropped(_scaled(1024), 4096, (512, 1024), *_ONE_LABEL)
_ADE_SEMANTIC = _cropped(_scaled(512), 2048, (512, 512), "INPUT.SIZE_DIVISIBILITY", 512)
_ADE = _cropped(_scaled(640), 2560, (640, 640), "INPUT.SIZE_DIVISIBILITY", 640)
_PAIRS = ("INPUT.NEW_SAMPLING", True, "INPUT.CROP.WITH_INSTANCE", True)

CASES = (
    Case("coco_panoptic_lsj", "coco", "panoptic"),
    Case("coco_instance_lsj", "coco", "instance"),
    Case("safetybarrier_instance_lsj", "coco", "instance"),
    Case("mask_former_semantic", "ade20k", "semantic", _ADE_SEMANTIC),
    Case("mask_former_panoptic", "ade20k", "panoptic_only", _ADE),
    Case("mask_former_instance", "ade20k", "instance", _ADE),
    Case("mask_former_semantic", "cityscapes", "semantic", _CITY),
    Case("mask_former_panoptic", "cityscapes", "panoptic", _CITY),
    Case("mask_former_instance", "cityscapes", "instance", _CITY),
    Case("mask_former_panoptic_cropsampling", "cityscapes", "pairs", (*_CITY, *_PAIRS)),
)


def chosen_cases(mappers: Sequence[str] | None, pictures: Sequence[str] | None) -> list[Case]:
    """The cases of the named mappers and pictures; None for all."""
    return [
        case
        for case in CASES
        if (not mappers or case.mapper in mappers) and (not pictures or case.pictures in pictures)
    ]


def config_of(case: Case, workers: int = 0, batch: int = 8) -> CfgNode:
    """The config of a case."""
    cfg = load_config("", [])
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.DATASET_MAPPER_NAME = case.mapper
    cfg.DATASETS.TRAIN = (case.dataset,)
    cfg.DATALOADER.NUM_WORKERS = workers
    cfg.SOLVER.IMS_PER_BATCH = batch
    cfg.SEED = 0
    cfg.merge_from_list(list(case.overrides))
    return cfg


def register_pictures(folder: Path, pictures: str, count: int) -> None:
    """Writes pictures of a kind and registers them for every ground truth of `CASES`."""
    kind = KINDS[pictures]
    records = write_pictures(folder / pictures, kind, count)
    metadata = {
        "ignore_label": 255,
        "thing_dataset_id_to_contiguous_id": {i: i for i in range(kind.things)},
        "stuff_dataset_id_to_contiguous_id": {
            i: i for i in range(kind.things, kind.things + kind.stuff)
        },
        **write_index(folder / pictures, records),
    }
    for case in {case.dataset: case for case in CASES if case.pictures == pictures}.values():
        if case.ground_truth == "pairs":
            things = range(kind.things)
            present = {s["category_id"] for r in records for s in r["segments_info"]}
            own = [{"cat_id": category} for category in things if category in present]
        else:
            left_out = _LEFT_OUT[case.ground_truth]
            own = [{k: v for k, v in r.items() if k not in left_out} for r in records]
        for catalog in (DatasetCatalog, MetadataCatalog):
            if case.dataset in catalog.list():
                catalog.remove(case.dataset)
        DatasetCatalog.register(case.dataset, lambda own=own: own)
        MetadataCatalog.get(case.dataset).set(**metadata)
