"""Loaders: which batches come out, in which order, with and without workers."""

import itertools
import random

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

import detectron2
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    MetadataCatalog,
    build_batch_data_loader,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import InferenceSampler, TrainingSampler
from detectron2.utils import comm

only_d2lite = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="d2lite's own guarantee"
)
# Wide and tall images in an irregular order.
RECORDS = [
    {"image_id": i, "width": 10 + 2 * (i * i % 3), "height": 11, "annotations": []}
    for i in range(9)
]


def batches(loader, count):
    return [[d["image_id"] for d in batch] for batch in itertools.islice(loader, count)]


class Counting(IterableDataset):
    def __iter__(self):
        return iter(range(6))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_batches_follow_the_sampler(num_workers):
    loader = build_detection_train_loader(
        RECORDS,
        mapper=lambda d: d,
        sampler=TrainingSampler(len(RECORDS), seed=0),
        total_batch_size=2,
        aspect_ratio_grouping=False,
        num_workers=num_workers,
    )
    order = list(itertools.islice(iter(TrainingSampler(len(RECORDS), seed=0)), 24))
    assert batches(loader, 12) == [order[i : i + 2] for i in range(0, 24, 2)]


@only_d2lite
@pytest.mark.parametrize("num_workers", [2, 3])
def test_grouped_batches_do_not_depend_on_the_number_of_workers(num_workers):
    def loader(workers):
        return build_detection_train_loader(
            RECORDS,
            mapper=lambda d: d,
            sampler=TrainingSampler(len(RECORDS), seed=0),
            total_batch_size=4,
            num_workers=workers,
        )

    assert batches(loader(num_workers), 10) == batches(loader(0), 10)


@only_d2lite
def test_a_grouped_run_continues_exactly_with_a_sampler_that_repeats_what_waited():
    stream = list(itertools.islice(iter(TrainingSampler(len(RECORDS), seed=0)), 100))

    class Stream(torch.utils.data.Sampler):
        def __init__(self, indices):
            self.indices = indices

        def __iter__(self):
            return iter(self.indices)

    def loader(indices):
        return build_detection_train_loader(
            RECORDS, mapper=lambda d: d, sampler=Stream(indices), total_batch_size=4
        )

    whole = batches(loader(stream), 12)
    # After five batches: what the loader has taken from the stream and not handed out.
    emitted = list(itertools.chain.from_iterable(whole[:5]))
    waiting, position = [], 0
    while emitted:
        index = stream[position]
        position += 1
        if index in emitted:
            emitted.remove(index)
        else:
            waiting.append(index)
    assert waiting
    assert batches(loader(waiting + stream[position:]), 7) == whole[5:]


def draw(record):
    return {
        **record,
        "draws": (np.random.rand(), random.random(), torch.rand(()).item()),
    }


@pytest.mark.parametrize("num_workers", [0, 2])
def test_augmentation_draws_repeat_with_the_seed(num_workers):
    def draws(seed):
        np.random.seed(0)
        random.seed(0)
        torch.manual_seed(0)
        loader = build_batch_data_loader(
            MapDataset(DatasetFromList(RECORDS), draw),
            TrainingSampler(len(RECORDS), seed=0),
            2,
            num_workers=num_workers,
            seed=seed,
        )
        return [d["draws"] for batch in itertools.islice(loader, 4) for d in batch]

    assert draws(3) == draws(3)
    assert len(set(draws(3))) == 8
    if num_workers:
        assert draws(3) != draws(4)


def test_the_batch_is_divided_between_processes(monkeypatch):
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 2)
    dataset = DatasetFromList(RECORDS)
    loader = build_batch_data_loader(dataset, TrainingSampler(9, seed=0), 6)
    assert len(next(iter(loader))) == 3
    with pytest.raises(AssertionError, match="divisible"):
        build_batch_data_loader(dataset, TrainingSampler(9, seed=0), 5)
    with pytest.raises(AssertionError):
        build_batch_data_loader(dataset, TrainingSampler(9, seed=0), 0)


def test_a_collate_function_is_used():
    for grouping in (False, True):
        loader = build_detection_train_loader(
            RECORDS,
            mapper=None,
            total_batch_size=2,
            aspect_ratio_grouping=grouping,
            collate_fn=len,
        )
        assert next(iter(loader)) == 2


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_test_loader_goes_once_over_everything_in_order(num_workers, batch_size):
    loader = build_detection_test_loader(
        RECORDS, mapper=lambda d: d, num_workers=num_workers, batch_size=batch_size
    )
    assert len(loader) == -(-len(RECORDS) // batch_size)
    assert list(itertools.chain.from_iterable(batches(loader, 100))) == list(range(9))


def test_the_test_loader_takes_the_ranks_part(monkeypatch):
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    loader = build_detection_test_loader(RECORDS, mapper=None)
    assert list(itertools.chain.from_iterable(batches(loader, 100))) == [5, 6, 7, 8]
    assert list(InferenceSampler(9)) == [5, 6, 7, 8]


def test_iterable_data_sets_take_no_sampler():
    loader = build_detection_train_loader(
        Counting(), mapper=None, total_batch_size=2, aspect_ratio_grouping=False
    )
    assert list(loader) == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(AssertionError, match="sampler"):
        build_detection_train_loader(
            Counting(), mapper=None, sampler=TrainingSampler(3), total_batch_size=2
        )


@pytest.fixture
def cfg():
    DatasetCatalog.register("loader_test_set", lambda: [dict(r) for r in RECORDS])
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("loader_test_set",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    cfg.SOLVER.IMS_PER_BATCH = 3
    cfg.SEED = 5
    yield cfg
    for catalog in (DatasetCatalog, MetadataCatalog):
        if "loader_test_set" in catalog:
            catalog.remove("loader_test_set")


def test_the_config_form_seeds_the_sampler(cfg):
    order = list(itertools.islice(iter(TrainingSampler(len(RECORDS), seed=5)), 6))
    loader = build_detection_train_loader(cfg, mapper=lambda d: d)
    assert batches(loader, 2) == [order[:3], order[3:]]


def test_keyword_arguments_override_the_config(cfg):
    loader = build_detection_train_loader(cfg, mapper=lambda d: d, total_batch_size=2)
    assert len(next(iter(loader))) == 2


def test_an_unknown_sampler_is_refused(cfg):
    cfg.DATALOADER.SAMPLER_TRAIN = "TrainSampler"
    with pytest.raises(ValueError, match="TrainSampler"):
        build_detection_train_loader(cfg, mapper=lambda d: d)


@pytest.mark.parametrize("sampler", ["RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"])
def test_other_samplers_are_chosen_by_name(cfg, sampler):
    cfg.DATALOADER.SAMPLER_TRAIN = sampler
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5
    assert len(batches(build_detection_train_loader(cfg, mapper=lambda d: d), 3)) == 3


def test_the_config_form_of_the_test_loader(cfg):
    loader = build_detection_test_loader(cfg, "loader_test_set", mapper=lambda d: d)
    assert len(loader) == 9


def test_an_empty_data_set_is_an_error(cfg):
    with pytest.raises(AssertionError):
        get_detection_dataset_dicts([])
    DatasetCatalog.remove("loader_test_set")
    DatasetCatalog.register("loader_test_set", list)
    with pytest.raises(AssertionError, match="empty"):
        get_detection_dataset_dicts("loader_test_set")


def test_nothing_left_after_filtering_is_an_error(cfg):
    with pytest.raises(AssertionError, match="No valid data"):
        get_detection_dataset_dicts("loader_test_set", filter_empty=True)


def test_a_torch_data_set_passes_through(cfg):
    class Squares(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return i * i

    DatasetCatalog.remove("loader_test_set")
    DatasetCatalog.register("loader_test_set", Squares)
    assert list(get_detection_dataset_dicts("loader_test_set")[i] for i in range(3)) == [0, 1, 4]
    assert len(get_detection_dataset_dicts(["loader_test_set"] * 2)) == 6


def test_data_sets_used_together_must_have_the_same_classes(cfg):
    cat = {"category_id": 0, "bbox": [0, 0, 1, 1]}
    for name, classes in (("set_a", ["cat"]), ("set_b", ["dog"])):
        DatasetCatalog.register(name, lambda: [{"annotations": [cat]}])
        MetadataCatalog.get(name).thing_classes = classes
    try:
        with pytest.raises(ValueError, match="thing_classes"):
            get_detection_dataset_dicts(["set_a", "set_b"])
        assert len(get_detection_dataset_dicts("set_a")) == 1
    finally:
        for name in ("set_a", "set_b"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
