"""The stream of training batches: exact on resume, for any number of workers."""

import random
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from mask2former.data import build_train_loader
from mask2former.data.batch_stream import BatchStream, orientation_of
from mask2former.data.build import batch_size_per_process
from mask2former.data.corrupt_images import CorruptImageLog
from mask2former.data.errors import DataError
from mask2former.data.training_samples import TrainingSamples, seeded

PANOPTIC = "tinyshapes_panoptic_train_with_sem_seg"


def batches(cfg, count, start_iter=0):
    iterator = iter(build_train_loader(cfg, start_iter))
    return [[(d["file_name"], d["image"]) for d in batch] for batch in islice(iterator, count)]


def assert_equal(first, second):
    assert len(first) == len(second)
    for one, other in zip(first, second):
        assert [name for name, _ in one] == [name for name, _ in other]
        assert all(torch.equal(a, b) for (_, a), (_, b) in zip(one, other))


@pytest.mark.parametrize("grouping", [False, True])
def test_resuming_continues_the_stream(make_cfg, grouping):
    cfg = make_cfg("coco_panoptic_lsj", PANOPTIC, "DATALOADER.ASPECT_RATIO_GROUPING", grouping)
    assert_equal(batches(cfg, 4, start_iter=9), batches(cfg, 13)[9:])


def test_the_number_of_workers_changes_nothing(make_cfg):
    cfg = make_cfg("coco_panoptic_lsj", PANOPTIC, "INPUT.COLOR_AUG_SSD", True)
    alone = batches(cfg, 6)
    cfg.DATALOADER.NUM_WORKERS = 2
    assert_equal(batches(cfg, 6), alone)


def test_colour_jitter_resumes_exactly_too(make_cfg):
    cfg = make_cfg("mask_former_panoptic", PANOPTIC, "INPUT.COLOR_AUG_SSD", True)
    assert_equal(batches(cfg, 2, start_iter=3), batches(cfg, 5)[3:])


def test_another_seed_gives_another_stream(make_cfg):
    first = batches(make_cfg("coco_panoptic_lsj", PANOPTIC, "SEED", 1), 6)
    second = batches(make_cfg("coco_panoptic_lsj", PANOPTIC, "SEED", 2), 6)
    assert [n for b in first for n, _ in b] != [n for b in second for n, _ in b]


def test_an_epoch_later_the_same_image_is_augmented_differently(make_cfg):
    cfg = make_cfg("coco_panoptic_lsj", PANOPTIC, "DATALOADER.ASPECT_RATIO_GROUPING", False)
    seen = {}
    for name, image in (pair for batch in batches(cfg, 12) for pair in batch):
        seen.setdefault(name, []).append(image)
    assert all(len(images) == 2 for images in seen.values())
    assert not any(torch.equal(*images) for images in seen.values())


def test_loading_in_the_main_process_leaves_the_trainer_s_randomness_alone(make_cfg):
    cfg = make_cfg("mask_former_panoptic", PANOPTIC, "INPUT.COLOR_AUG_SSD", True)
    torch.manual_seed(3)
    np.random.seed(3)
    random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    batches(cfg, 2)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
    assert before[2] == random.getstate()


def test_seeded_blocks_repeat_for_all_generators():
    def draw():
        with seeded(np.random.SeedSequence([1, 2])):
            return random.random(), float(np.random.rand()), float(torch.rand(1))

    first = draw()
    random.random(), np.random.rand(), torch.rand(1)
    assert draw() == first


def test_grouped_batches_hold_one_orientation(make_cfg):
    cfg = make_cfg("coco_panoptic_lsj", PANOPTIC)
    for batch in islice(iter(build_train_loader(cfg)), 12):
        assert len({d["width"] > d["height"] for d in batch}) == 1


def test_a_batch_goes_out_when_its_bucket_is_full():
    wide = [True, False, True, False, False, True]
    stream = BatchStream(range(6), 2, is_wide=lambda index: wide[index])
    assert list(stream) == [[(0, 0), (2, 2)], [(1, 1), (3, 3)]]


def test_two_processes_together_make_the_batches_of_one(monkeypatch):
    def stream(rank, world, size):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world)
        sampler = TrainingSampler(7, seed=5)
        return list(islice(BatchStream(sampler, size, rank=rank, world_size=world), 9))

    together = stream(0, 1, 4)
    halves = stream(0, 2, 2), stream(1, 2, 2)
    for whole, left, right in zip(together, *halves):
        assert sorted(left + right) == sorted(whole)


def test_orientation_comes_from_records_or_else_from_image_headers(tmp_path):
    records = [{"width": 3, "height": 2}, {"width": 2, "height": 2}]
    assert [orientation_of(records)(i) for i in range(2)] == [True, False]
    exif = Image.Exif()
    exif[274] = 8
    Image.new("RGB", (9, 5)).save(tmp_path / "wide.png")
    Image.new("RGB", (9, 5)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "broken.jpg").write_bytes(b"no")
    names = [str(tmp_path / n) for n in ("wide.png", "turned.jpg", "broken.jpg")]
    is_wide = orientation_of([{"file_name": n} for n in names] + [{"cat_id": 3}])
    assert [is_wide(i) for i in range(4)] == [True, False, False, False]


@pytest.mark.parametrize("name", ["RepeatFactorTrainingSampler", "RandomSubsetTrainingSampler"])
def test_other_samplers_resume_exactly(make_cfg, name):
    dataset = "tinyshapes_instance_train"
    overrides = ("DATALOADER.SAMPLER_TRAIN", name, "DATALOADER.REPEAT_THRESHOLD", 0.6)
    cfg = make_cfg("coco_instance_lsj", dataset, *overrides)
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5  # no default in detectron2
    assert_equal(batches(cfg, 2, start_iter=4), batches(cfg, 6)[4:])


def test_an_unknown_sampler_is_refused(make_cfg):
    with pytest.raises(ValueError, match="SAMPLER_TRAIN"):
        build_train_loader(
            make_cfg("coco_panoptic_lsj", PANOPTIC, "DATALOADER.SAMPLER_TRAIN", "Mine")
        )


@pytest.mark.parametrize(
    ("name", "says"),
    [("RepeatFactorTrainingSampler", "instances"), ("RandomSubsetTrainingSampler", "SUBSET_RATIO")],
)
def test_a_sampler_that_lacks_what_it_needs_says_so(make_cfg, name, says):
    cfg = make_cfg("coco_panoptic_lsj", PANOPTIC, "DATALOADER.SAMPLER_TRAIN", name)
    with pytest.raises(DataError, match=f"SAMPLER_TRAIN {name}.*{says}"):
        build_train_loader(cfg)


def test_batches_that_processes_cannot_share_are_refused(make_cfg, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    assert batch_size_per_process(8) == 2
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH is 6, which 4 processes.*use 4 or 8"):
        build_train_loader(make_cfg("coco_panoptic_lsj", PANOPTIC, "SOLVER.IMS_PER_BATCH", 6))


def test_no_training_set_and_unknown_sets_are_refused(make_cfg):
    cfg = make_cfg("coco_panoptic_lsj", PANOPTIC)
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN is empty"):
        build_train_loader(cfg)
    cfg.DATASETS.TRAIN = ("tinyshapes_panoptic_trian",)
    with pytest.raises(KeyError, match="tinyshapes_panoptic_train"):
        build_train_loader(cfg)


def test_a_mapper_may_ask_for_another_record():
    samples = TrainingSamples(
        [{"n": n} for n in range(4)],
        lambda record: record if record["n"] else None,
        seed=0,
        corrupt_images=CorruptImageLog(),
    )
    assert all(samples[(position, 0)]["n"] > 0 for position in range(5))
    assert samples.corrupt_images.count == 0
