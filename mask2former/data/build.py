"""Training and test loaders on detectron2's public pieces.

What they add to detectron2's own builders:

* **Exact resume.** With ``SEED >= 0`` the k-th batch is a function of (config, data, k) alone: the
  sampler's order is seeded, every sample's augmentation draws from a stream seeded by (SEED, its
  global position), and a resumed run skips the first ``start_iter`` batches without decoding them.
  The number of workers does not matter, nor does the number of processes for what a global batch
  contains (aspect-ratio grouping aside, which each process does for itself).
* **Broken images.** Training replaces them and counts; evaluation stops or skips, as
  ``TEST.ON_CORRUPT_IMAGE`` says.
* **Clear errors** for missing folders and for batch sizes that the processes cannot share.

With ``SEED < 0`` a seed is drawn when the loader is built, so two runs differ, as published.
"""

import itertools
import logging
from collections.abc import Callable, Iterable
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Sampler

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.build import trivial_batch_collator
from detectron2.data.detection_utils import check_metadata_consistency
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm

from .batch_stream import BatchStream, orientation_of
from .corrupt_images import (
    CorruptImageLog,
    GuardedTestMapper,
    SkippingLoader,
    drop_skipped,
)
from .dataset_mappers import build_train_mapper
from .datasets import require_dataset_files
from .errors import DataError
from .mixing import MixedSetsSampler
from .training_samples import TrainingSamples

logger = logging.getLogger(__name__)


def build_train_loader(
    cfg: CfgNode, start_iter: int = 0, *, mapper: Callable | None = None
) -> DataLoader:
    """An endless loader of training batches.

    Args:
        cfg: reads DATASETS.TRAIN, INPUT, SOLVER.IMS_PER_BATCH, DATALOADER and SEED.
        start_iter: number of batches this process has trained on already; they are skipped.
        mapper: replaces the one that INPUT.DATASET_MAPPER_NAME names.

    Returns:
        a DataLoader that yields lists of IMS_PER_BATCH / world size mapped records. Its attribute
        ``corrupt_images`` (`CorruptImageLog`) knows the images that could not be decoded.

    Raises:
        ValueError: the batch size is not divisible by the number of processes, or a sampler or
            training set is missing.
        FileNotFoundError: a dataset is not where it is expected.
    """
    batch_size = batch_size_per_process(cfg.SOLVER.IMS_PER_BATCH)
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    sets = _training_records(cfg)
    records = list(itertools.chain.from_iterable(sets))
    if cfg.DATASETS.TRAIN_WEIGHTS:
        sampler = MixedSetsSampler([len(s) for s in sets], cfg.DATASETS.TRAIN_WEIGHTS, seed=seed)
    else:
        sampler = _training_sampler(cfg, records, seed)
    if cfg.DATALOADER.NUM_WORKERS > 0:
        # Workers are the parallelism. Said here and not in the workers: a forked child must not
        # inherit a pool of OpenCV threads that it does not have.
        cv2.setNumThreads(0)
    corrupt_images = CorruptImageLog()
    dataset = TrainingSamples(
        DatasetFromList(records, copy=False),
        build_train_mapper(cfg) if mapper is None else mapper,
        seed=seed,
        corrupt_images=corrupt_images,
    )
    is_wide = orientation_of(records) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
    stream = BatchStream(
        sampler,
        batch_size,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        first_batch=start_iter,
        is_wide=is_wide,
    )
    loader = DataLoader(
        dataset,
        batch_sampler=stream,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        # A generator of its own: starting workers must not draw from the trainer's stream.
        generator=torch.Generator(),
    )
    loader.corrupt_images = corrupt_images
    return loader


def build_test_loader(
    cfg: CfgNode, dataset_name: str, batch_size: int = 1, *, mapper: Callable | None = None
) -> Iterable[list[dict[str, Any]]]:
    """A loader over this process's share of a test set, in order.

    Args:
        cfg: reads INPUT, DATALOADER.NUM_WORKERS and TEST.ON_CORRUPT_IMAGE ("raise" or "skip").
        dataset_name: a registered dataset.
        batch_size: images a batch.
        mapper: replaces detectron2's ``DatasetMapper(cfg, False)``.

    Returns:
        an iterable of lists of mapped records, with ``len()`` and the attribute ``corrupt_images``
        (`CorruptImageLog`). Skipped images are left out of their batch.

    Raises:
        ValueError: another value of TEST.ON_CORRUPT_IMAGE.
        FileNotFoundError: the dataset is not where it is expected.
        ImageDecodeError: while iterating, an image cannot be decoded and the policy is "raise".
    """
    policy = cfg.TEST.ON_CORRUPT_IMAGE
    if policy not in ("raise", "skip"):
        raise ValueError(f'TEST.ON_CORRUPT_IMAGE must be "raise" or "skip", not "{policy}"')
    require_dataset_files(dataset_name)
    corrupt_images = CorruptImageLog()
    loader = build_detection_test_loader(
        get_detection_dataset_dicts(dataset_name, filter_empty=False),
        mapper=GuardedTestMapper(
            DatasetMapper(cfg, False) if mapper is None else mapper,
            skip=policy == "skip",
            corrupt_images=corrupt_images,
        ),
        batch_size=batch_size,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=drop_skipped,
    )
    return SkippingLoader(loader, corrupt_images)


def batch_size_per_process(total: int) -> int:
    """``total`` shared among all processes.

    Raises:
        ValueError: it is not positive or cannot be shared evenly.
    """
    processes = comm.get_world_size()
    if total < 1 or total % processes:
        lower = total // processes * processes
        choices = " or ".join(str(n) for n in (lower, lower + processes) if n > 0)
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {total}, which {processes} processes cannot share evenly; "
            f"use {choices}."
        )
    return total // processes


def _training_records(cfg: CfgNode) -> list[list[dict[str, Any]]]:
    """The records of every training set; all in one list unless the sets have weights."""
    names = list(cfg.DATASETS.TRAIN)
    if not names:
        raise ValueError("DATASETS.TRAIN is empty: name at least one registered dataset")
    for name in names:
        require_dataset_files(name)
    if not cfg.DATASETS.TRAIN_WEIGHTS:
        return [_records_of(cfg, names)]
    if all(MetadataCatalog.get(name).get("thing_classes") for name in names):
        check_metadata_consistency("thing_classes", names)
    return [_records_of(cfg, [name]) for name in names]


def _records_of(cfg: CfgNode, names: list[str]) -> list[dict[str, Any]]:
    keypoints = cfg.MODEL.KEYPOINT_ON
    try:
        return get_detection_dataset_dicts(
            names,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if keypoints else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
    except AssertionError as error:  # detectron2's way to say that nothing usable is left
        raise DataError(
            f"DATASETS.TRAIN {', '.join(names)}: {error} Images need at least one annotation that "
            "is not a crowd (python tools/dataset_doctor.py finds what is missing)."
        ) from error


def _training_sampler(cfg: CfgNode, records: list[dict], seed: int) -> Sampler:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    logger.info("Using training sampler %s", name)
    if name == "TrainingSampler":
        return TrainingSampler(len(records), seed=seed)
    if name == "RepeatFactorTrainingSampler":
        if any("annotations" not in record for record in records):
            raise DataError(
                f"DATALOADER.SAMPLER_TRAIN {name} counts the annotated instances of each class, "
                f"which {', '.join(cfg.DATASETS.TRAIN)} does not list; choose TrainingSampler"
            )
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, cfg.DATALOADER.REPEAT_THRESHOLD
        )
        return RepeatFactorTrainingSampler(factors, seed=seed)
    if name == "RandomSubsetTrainingSampler":
        from detectron2.data.samplers import RandomSubsetTrainingSampler

        if "RANDOM_SUBSET_RATIO" not in cfg.DATALOADER:
            raise DataError(
                f"DATALOADER.SAMPLER_TRAIN {name} reads DATALOADER.RANDOM_SUBSET_RATIO, a key that "
                "a script of your own has to add (detectron2 has no default); or choose "
                "TrainingSampler"
            )
        return RandomSubsetTrainingSampler(
            len(records), cfg.DATALOADER.RANDOM_SUBSET_RATIO, seed_shuffle=seed, seed_subset=seed
        )
    raise DataError(
        f'DATALOADER.SAMPLER_TRAIN "{name}" is unknown; choose TrainingSampler, '
        "RepeatFactorTrainingSampler or RandomSubsetTrainingSampler"
    )
