"""What can be found wrong with a config before anything is built or written."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, Metadata, MetadataCatalog
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from mask2former.data.dataset_mappers import DATASET_MAPPERS
from mask2former.data.datasets.folders import remedy, require_dataset_files
from mask2former.inference.tiling import check_tiling
from mask2former.modeling.compiling import check_compiler
from mask2former.modeling.transformer_decoder.maskformer_transformer_decoder import (
    TRANSFORMER_DECODER_REGISTRY,
)

from .checkpoint import check_weights_exist
from .errors import ConfigError
from .suggestions import nearest

# Keys whose values are names in a registry.
_PART_KEYS = (
    "MODEL.META_ARCHITECTURE",
    "MODEL.BACKBONE.NAME",
    "MODEL.SEM_SEG_HEAD.NAME",
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME",
    "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME",
)
_REGISTRIES = (
    META_ARCH_REGISTRY,
    BACKBONE_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    TRANSFORMER_DECODER_REGISTRY,
)


def check_config(cfg: CfgNode, *, eval_only: bool, resume: bool) -> None:
    """Raises ConfigError (WeightsError, CompilerError) at the first thing that cannot work."""
    if eval_only and not cfg.DATASETS.TEST:
        raise ConfigError("--eval-only: DATASETS.TEST is empty; name a data set to evaluate on")
    if not eval_only and not cfg.DATASETS.TRAIN:
        raise ConfigError("DATASETS.TRAIN is empty; name a data set to train on")
    train = () if eval_only else cfg.DATASETS.TRAIN
    for name in dict.fromkeys((*train, *cfg.DATASETS.TEST)):
        check_dataset(cfg, name, evaluated=name in cfg.DATASETS.TEST)
        check_class_count(cfg, name)
    if not eval_only:
        if cfg.SOLVER.MAX_ITER < 1:
            raise ConfigError(
                f"SOLVER.MAX_ITER is {cfg.SOLVER.MAX_ITER}; it must be at least 1 (to evaluate "
                "only: --eval-only)"
            )
        check_schedule(cfg)
        check_crop_sampling(cfg)
        check_intra_batch_supervision(cfg)
        check_batch_size(cfg, comm.get_world_size())
    check_evaluation(cfg, eval_only=eval_only)
    key, node = ("MODEL.COMPILE", cfg.MODEL) if eval_only else ("SOLVER.COMPILE", cfg.SOLVER)
    if node.COMPILE:
        check_compiler(key, cfg.MODEL.DEVICE)
    resumes = resume and os.path.exists(os.path.join(cfg.OUTPUT_DIR, "last_checkpoint"))
    is_local = bool(cfg.MODEL.WEIGHTS) and "://" not in cfg.MODEL.WEIGHTS
    # Other machines than the first need not have the file: they get the weights from rank 0.
    if is_local and not resumes and comm.is_main_process():
        check_weights_exist(cfg.MODEL.WEIGHTS)


def check_dataset(cfg: CfgNode, name: str, *, evaluated: bool) -> None:
    """Raises ConfigError when a data set is not registered or its files are not there.

    Args:
        evaluated: whether its evaluators will run, which may need an instance file of their own.
    """
    if name not in DatasetCatalog.list():
        raise ConfigError(
            f"DATASETS: there is no data set {name!r}{nearest(name, DatasetCatalog.list())}"
        )
    try:
        require_dataset_files(name)
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error
    instances = MetadataCatalog.get(name).get("json_file")
    needs_instances = evaluated and cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON
    if needs_instances and instances and not PathManager.exists(instances):
        raise ConfigError(
            f"Data set {name}: {instances} does not exist (json_file), which instance evaluation "
            f"needs. {remedy(name)} Or leave it out: MODEL.MASK_FORMER.TEST.INSTANCE_ON False"
        )


def check_class_count(cfg: CfgNode, name: str) -> None:
    """Raises ConfigError when MODEL.SEM_SEG_HEAD.NUM_CLASSES is not the data set's class count."""
    count = class_count(MetadataCatalog.get(name))
    configured = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    if count is not None and count != configured and not _things_of_training_set(cfg, name):
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {configured}, but data set {name} has {count} "
            f"classes; set MODEL.SEM_SEG_HEAD.NUM_CLASSES {count} or choose another data set"
        )


def _things_of_training_set(cfg: CfgNode, name: str) -> bool:
    """Whether ``name`` is an instance set with the things of the panoptic set trained on.

    A panoptic model gives instances of things only, with the training set's ids: it can be tested
    on such a set (coco_2017_val for coco_2017_train_panoptic), though that has fewer classes.
    """
    if name in cfg.DATASETS.TRAIN or not cfg.DATASETS.TRAIN:
        return False
    if not cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON or not cfg.MODEL.MASK_FORMER.TEST.INSTANCE_ON:
        return False
    trained, tested = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]), MetadataCatalog.get(name)
    things = trained.get("thing_dataset_id_to_contiguous_id")
    return (
        tested.get("evaluator_type") == "coco"
        and class_count(trained) == cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        and bool(things)
        and things == tested.get("thing_dataset_id_to_contiguous_id")
    )


def class_count(meta: Metadata) -> int | None:
    """Number of classes a model for this data set predicts; None if the metadata does not say.

    Panoptic: contiguous ids of things and stuff together; semantic: ``stuff_classes``; instance:
    ``thing_classes``.
    """
    kind = meta.get("evaluator_type") or ""
    if "panoptic" in kind:
        return _panoptic_class_count(meta)
    if "sem_seg" in kind:
        return len(meta.get("stuff_classes") or ()) or None
    if kind in ("coco", "lvis", "ytvis") or "instance" in kind:
        return len(meta.get("thing_classes") or ()) or None
    return None


def check_evaluation(cfg: CfgNode, *, eval_only: bool) -> None:
    """Raises ConfigError when a key of evaluation cannot mean anything here."""
    if cfg.TEST.COCO_EVAL not in ("fast", "pycocotools"):
        raise ConfigError(f"TEST.COCO_EVAL must be fast or pycocotools, not {cfg.TEST.COCO_EVAL!r}")
    with settings_errors():
        check_tiling(cfg)
    augmentation = cfg.TEST.AUG
    if augmentation.AFTER_TRAINING and not augmentation.ENABLED:
        raise ConfigError("TEST.AUG.AFTER_TRAINING needs TEST.AUG.ENABLED True beside it")
    if not augmentation.ENABLED or not (eval_only or augmentation.AFTER_TRAINING):
        return
    if not augmentation.MIN_SIZES:
        raise ConfigError("TEST.AUG.MIN_SIZES is empty; name the sizes to average over")
    if not cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON:
        raise ConfigError(
            "TEST.AUG.ENABLED: test-time augmentation is for semantic output; set "
            "MODEL.MASK_FORMER.TEST.SEMANTIC_ON True, or TEST.AUG.ENABLED False"
        )
    for name in cfg.DATASETS.TEST:
        kind = MetadataCatalog.get(name).get("evaluator_type") or ""
        if kind in ("coco", "lvis") or "instance" in kind:
            raise ConfigError(
                f"TEST.AUG.ENABLED: test-time augmentation is for semantic segmentation, but "
                f"{name} is an instance set (evaluator_type {kind}); set TEST.AUG.ENABLED False"
            )


def check_schedule(cfg: CfgNode) -> None:
    """Raises ConfigError for numbers of a training that libraries refuse without naming a key."""
    solver = cfg.SOLVER
    lowest = (
        ("SOLVER.CHECKPOINT_PERIOD", 1, "; MAX_ITER or more saves the final weights only"),
        ("SOLVER.BASE_LR", 0, ""),
        ("DATALOADER.NUM_WORKERS", 0, "; 0 loads in the training process itself"),
    )
    for key, least, hint in lowest:
        value = _value(cfg, key)
        if value < least:
            raise ConfigError(f"{key} is {value}; it must be at least {least}{hint}")
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and list(solver.STEPS) != sorted(
        set(solver.STEPS)
    ):
        raise ConfigError(f"SOLVER.STEPS {tuple(solver.STEPS)}: the iterations must increase")
    for entry in cfg.TEST.EXPECTED_RESULTS:
        if not isinstance(entry, (list, tuple)) or len(entry) != 4:
            raise ConfigError(
                f"TEST.EXPECTED_RESULTS: {entry!r} is not [task, metric, expected value, "
                "tolerance], such as ['sem_seg', 'mIoU', 47.2, 0.5]"
            )


def check_crop_sampling(cfg: CfgNode) -> None:
    """Raises ConfigError when crop sampling is asked for, but not of its mapper and one set."""
    mapper, sampler = cfg.INPUT.DATASET_MAPPER_NAME, "mask_former_panoptic_cropsampling"
    others = DATASET_MAPPERS.keys() - {sampler}
    if (cfg.INPUT.NEW_SAMPLING or cfg.INPUT.CROP.WITH_INSTANCE) and mapper in others:
        raise ConfigError(
            "INPUT.NEW_SAMPLING and INPUT.CROP.WITH_INSTANCE need INPUT.DATASET_MAPPER_NAME "
            f"{sampler}, not {mapper}"
        )
    if mapper != sampler:
        return
    if len(cfg.DATASETS.TRAIN) != 1:
        raise ConfigError(
            f"DATASETS.TRAIN must name one data set for {sampler} (its records are categories), "
            f"not {len(cfg.DATASETS.TRAIN)}"
        )
    index = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("images_per_cat_json")
    if index is None:
        raise ConfigError(
            f"Data set {cfg.DATASETS.TRAIN[0]} has no images_per_cat_json in its metadata, which "
            f"{sampler} needs; choose a *_cropsampling set"
        )
    if not PathManager.exists(index):
        raise ConfigError(
            f"Data set {cfg.DATASETS.TRAIN[0]}: {index} does not exist (images_per_cat_json). "
            f"{remedy(cfg.DATASETS.TRAIN[0])}"
        )


def check_intra_batch_supervision(cfg: CfgNode) -> None:
    """Raises ConfigError when IBS is asked for of a data set that does not tell things."""
    if not cfg.MODEL.MASK_FORMER.APPLY_IBS:
        return
    name = cfg.DATASETS.TRAIN[0]
    if MetadataCatalog.get(name).get("thing_dataset_id_to_contiguous_id") is None:
        raise ConfigError(
            f"MODEL.MASK_FORMER.APPLY_IBS True, but data set {name} (DATASETS.TRAIN) has no thing "
            "classes (no thing_dataset_id_to_contiguous_id in its metadata): train on a panoptic "
            "or instance data set, or set MODEL.MASK_FORMER.APPLY_IBS False"
        )


def check_batch_size(cfg: CfgNode, processes: int) -> None:
    """Raises ConfigError unless every process gets the same number of images, or of pairs."""
    batch = cfg.SOLVER.IMS_PER_BATCH
    unit = 2 if cfg.INPUT.NEW_SAMPLING else 1
    if batch % unit:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH is {batch}, but INPUT.NEW_SAMPLING trains on pairs of images; "
            f"set SOLVER.IMS_PER_BATCH {batch + 1}"
        )
    if cfg.SOLVER.REFERENCE_WORLD_SIZE > 0:
        return  # detectron2 scales the batch to the number of processes
    step = processes * unit
    if batch < 1 or batch % step:
        smaller, larger = batch // step * step, (batch // step + 1) * step
        choices = " or ".join(str(n) for n in (smaller, larger) if n > 0)
        pairs = " in pairs (INPUT.NEW_SAMPLING)" if unit == 2 else ""
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH is {batch}, which {processes} processes cannot share evenly"
            f"{pairs}; "
            f"set SOLVER.IMS_PER_BATCH {choices}"
        )


@contextmanager
def settings_errors() -> Iterator[None]:
    """Inside, detectron2's ValueErrors about a key are the user's to mend."""
    try:
        yield
    except ValueError as error:
        if not re.search(r"\b[A-Z]+\.[A-Z_.]+\b", str(error)):
            raise
        raise ConfigError(str(error)) from error


def unknown_part(error: KeyError, cfg: CfgNode) -> ConfigError | None:
    """For a registry's "No object named ...": which key names it, and what is nearest.

    Returns:
        None for a KeyError that is not about a name in the config.
    """
    if str(error.args[0]).startswith("Unknown normalisation"):
        return ConfigError(f"a NORM key (MODEL.RESNETS.NORM, ...): {error.args[0]}")
    found = re.match(r"No object named '(.*)' found in '(.*)' registry!", str(error.args[0]))
    if found is None:
        return None
    name, kind = found.groups()
    keys = [key for key in _PART_KEYS if _value(cfg, key) == name] or ["the config"]
    known = [n for registry in _REGISTRIES for n, _ in registry]
    return ConfigError(
        f"{keys[0]}: there is no {name!r} in the registry {kind}{nearest(name, known)}"
    )


def _value(cfg: CfgNode, key: str) -> object:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def _panoptic_class_count(meta: Metadata) -> int | None:
    things, stuff = (
        {c: d for d, c in (meta.get(f"{kind}_dataset_id_to_contiguous_id") or {}).items()}
        for kind in ("thing", "stuff")
    )
    shared = things.keys() & stuff.keys()
    if any(things[c] != stuff[c] for c in shared):
        return None  # things and stuff are numbered separately (Panoptic FPN's sets)
    return len(things.keys() | stuff.keys()) or None
