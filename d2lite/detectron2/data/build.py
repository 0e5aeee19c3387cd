"""From names of data sets to loaders that yield lists of mapped records.

A training batch depends on the sampler, the mapper and the random generators only, never on the
number of workers: with and without aspect-ratio grouping the loader sees the mapped records in the
sampler's order. So a run can be continued exactly by handing in, through the public ``sampler=``,
one that leaves out what was consumed (and first repeats what was still waiting in the two
buckets of the grouping), with a mapper that seeds its draws per index.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch.utils import data as torchdata

from detectron2._missing import missing_getattr
from detectron2.config import configurable
from detectron2.data._records import (
    filter_images_with_few_keypoints,
    filter_images_with_only_crowd_annotations,
    get_detection_dataset_dicts,
    load_proposals_into_dataset,
    print_instances_class_histogram,
)
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.data.common import (
    AspectRatioGroupedDataset,
    DatasetFromList,
    MapDataset,
    ToIterableDataset,
)
from detectron2.data.dataset_mapper import DatasetMapper
from detectron2.data.samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils.comm import get_world_size
from detectron2.utils.env import seed_all_rng

__all__ = [
    "DatasetCatalog",
    "MetadataCatalog",
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "filter_images_with_few_keypoints",
    "filter_images_with_only_crowd_annotations",
    "get_detection_dataset_dicts",
    "load_proposals_into_dataset",
    "print_instances_class_histogram",
    "trivial_batch_collator",
    "worker_init_reset_seed",
]

logger = logging.getLogger(__name__)


def build_batch_data_loader(
    dataset: torchdata.Dataset,
    sampler: torchdata.Sampler | None,
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    drop_last: bool = True,
    single_gpu_batch_size: int | None = None,
    prefetch_factor: int | None = 2,
    persistent_workers: bool = False,
    pin_memory: bool = False,
    seed: int | None = None,
    **kwargs: Any,
) -> Iterable[list]:
    """Batch a (mapped) data set.

    Args:
        dataset: map-style, walked in the order of ``sampler``; or iterable, then ``sampler``
            must be None.
        sampler: of indices, already this rank's share.
        total_batch_size: over all processes; a multiple of their number.
        aspect_ratio_grouping: batches of only wide or only other images; elements must be dicts
            with ``width`` and ``height``, and ``drop_last`` must hold.
        num_workers: loader processes.
        collate_fn: list of elements -> batch; default: the list itself.
        drop_last: leave out an incomplete last batch of a finite sampler.
        single_gpu_batch_size: size per process, instead of ``total_batch_size``.
        prefetch_factor, persistent_workers, pin_memory, kwargs: of torch's DataLoader.
        seed: of the workers' random generators; None takes it from torch's global generator.

    Returns:
        iterable of batches.

    Raises:
        AssertionError: the batch size is not positive or not divisible by the processes.
    """
    batch_size = _batch_size_per_process(total_batch_size, single_gpu_batch_size)
    logger.info("Making batched data loader with batch_size=%d", batch_size)
    if isinstance(dataset, torchdata.IterableDataset):
        if sampler is not None:
            raise AssertionError("sampler must be None if dataset is IterableDataset")
    else:
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    generator = None
    if seed is not None:
        generator = torch.Generator()
        generator.manual_seed(seed)
    make_loader = partial(
        torchdata.DataLoader,
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        worker_init_fn=worker_init_reset_seed,
        prefetch_factor=prefetch_factor if num_workers > 0 else None,
        persistent_workers=persistent_workers and num_workers > 0,
        pin_memory=pin_memory,
        generator=generator,
        **kwargs,
    )
    if not aspect_ratio_grouping:
        return make_loader(drop_last=drop_last, collate_fn=collate_fn or trivial_batch_collator)

    if not drop_last:
        raise AssertionError("aspect_ratio_grouping drops incomplete batches; drop_last must hold")
    # Workers send lists of batch_size records: that keeps the sampler's order for any number of
    # workers, and costs fewer messages than sending them one by one.
    lists = make_loader(drop_last=False, collate_fn=trivial_batch_collator)
    grouped = AspectRatioGroupedDataset(_Flattened(lists), batch_size)
    return grouped if collate_fn is None else MapDataset(grouped, collate_fn)


class _Flattened:
    """The elements of an iterable of lists, one by one."""

    def __init__(self, lists: Iterable[list]) -> None:
        self._lists = lists

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self._lists)


def _batch_size_per_process(total: int | None, single: int | None) -> int:
    if single:
        if total:
            raise ValueError("give total_batch_size or single_gpu_batch_size, not both")
        return single
    world_size = get_world_size()
    if not total or total <= 0 or total % world_size != 0:
        raise AssertionError(
            f"Total batch size ({total}; SOLVER.IMS_PER_BATCH) must be positive and divisible by "
            f"the number of processes ({world_size})."
        )
    return total // world_size


def _train_loader_from_config(
    cfg: Any,
    mapper: Callable | None = None,
    *,
    dataset: Any = None,
    sampler: torchdata.Sampler | None = None,
) -> dict[str, Any]:
    if dataset is None:
        with_keypoints = cfg.MODEL.KEYPOINT_ON
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=(
                cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if with_keypoints else 0
            ),
            proposal_files=(
                cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None
            ),
        )
        logger.info("Training on %d records of %s", len(dataset), ", ".join(cfg.DATASETS.TRAIN))
    if mapper is None:
        mapper = DatasetMapper(cfg, True)
    if sampler is None and not isinstance(dataset, torchdata.IterableDataset):
        sampler = _train_sampler_from_config(cfg, dataset)
    return {
        "dataset": dataset,
        "sampler": sampler,
        "mapper": mapper,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


def _train_sampler_from_config(cfg: Any, dataset: Any) -> torchdata.Sampler:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    logger.info("Using training sampler %s", name)
    if name == "TrainingSampler":
        return TrainingSampler(len(dataset), seed=cfg.SEED)
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
        )
        return RepeatFactorTrainingSampler(factors, seed=cfg.SEED)
    if name == "RandomSubsetTrainingSampler":
        return RandomSubsetTrainingSampler(len(dataset), cfg.DATALOADER.RANDOM_SUBSET_RATIO)
    raise ValueError(
        f"Unknown training sampler: DATALOADER.SAMPLER_TRAIN '{name}'. Known: TrainingSampler, "
        "RepeatFactorTrainingSampler, RandomSubsetTrainingSampler"
    )


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset: list | torchdata.Dataset,
    *,
    mapper: Callable | None,
    sampler: torchdata.Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
    **kwargs: Any,
) -> Iterable[list]:
    """An endless loader of training batches.

    Also callable as ``build_detection_train_loader(cfg, mapper=None, ...)``; keyword arguments then
    override what the config says.

    Args:
        dataset: records, or a map-style or iterable torch Dataset.
        mapper: record -> training example; None hands records through. If it returns None,
            another record is taken.
        sampler: of indices; default: TrainingSampler with a random seed.
        total_batch_size: over all processes.
        aspect_ratio_grouping, num_workers, collate_fn, kwargs: as :func:`build_batch_data_loader`.

    Returns:
        iterable of batches: lists of ``total_batch_size / processes`` mapped records.
    """
    dataset, sampler = _mapped_and_sampled(dataset, mapper, sampler, TrainingSampler)
    if sampler is not None and not isinstance(sampler, torchdata.Sampler):
        raise AssertionError(f"Expect a torch Sampler but got {type(sampler).__name__}")
    return build_batch_data_loader(
        dataset,
        sampler,
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
        **kwargs,
    )


def _test_loader_from_config(
    cfg: Any, dataset_name: str | list[str], mapper: Callable | None = None
) -> dict[str, Any]:
    names = [dataset_name] if isinstance(dataset_name, str) else list(dataset_name)
    proposal_files = None
    if cfg.MODEL.LOAD_PROPOSALS:
        tests = list(cfg.DATASETS.TEST)
        proposal_files = [cfg.DATASETS.PROPOSAL_FILES_TEST[tests.index(name)] for name in names]
    return {
        "dataset": get_detection_dataset_dicts(
            names, filter_empty=False, proposal_files=proposal_files
        ),
        "mapper": DatasetMapper(cfg, False) if mapper is None else mapper,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


@configurable(from_config=_test_loader_from_config)
def build_detection_test_loader(
    dataset: list | torchdata.Dataset,
    *,
    mapper: Callable | None,
    sampler: torchdata.Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list], Any] | None = None,
) -> torchdata.DataLoader:
    """A loader that goes once over this process's part of the records, in order.

    Also callable as ``build_detection_test_loader(cfg, dataset_name, mapper=None)``.

    Args:
        dataset: records, or a torch Dataset.
        mapper: record -> model input.
        sampler: default: InferenceSampler, a contiguous part per process.
        batch_size: images per batch and process; the last batch may be smaller.
        num_workers: loader processes.
        collate_fn: default: the list of mapped records.

    Returns:
        DataLoader; its ``len`` is the number of batches of this process.
    """
    dataset, sampler = _mapped_and_sampled(dataset, mapper, sampler, InferenceSampler)
    return torchdata.DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=False,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )


def _mapped_and_sampled(
    dataset: Any,
    mapper: Callable | None,
    sampler: torchdata.Sampler | None,
    default: Callable[[int], torchdata.Sampler],
) -> tuple[torchdata.Dataset, torchdata.Sampler | None]:
    """Mapped records, and the sampler of their indices; an iterable dataset has none."""
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    if mapper is not None:
        dataset = MapDataset(dataset, mapper)
    if isinstance(dataset, torchdata.IterableDataset):
        if sampler is not None:
            raise AssertionError("sampler must be None if dataset is IterableDataset")
        return dataset, None
    return dataset, default(len(dataset)) if sampler is None else sampler


def trivial_batch_collator(batch: list) -> list:
    """A batch is the list of its elements."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed numpy, Python and torch of a worker; torch's loader seeds torch only (and Python).

    Augmentations draw from numpy, whose generator a forked worker would share with its siblings.
    """
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)


__getattr__ = missing_getattr(__name__)
