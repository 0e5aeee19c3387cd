"""Images that cannot be decoded: replaced in training, raised or skipped in evaluation."""

import logging
import os
import pickle
import shutil
from itertools import islice

import pytest

from mask2former.data import (
    CorruptImageLog,
    ImageDecodeError,
    build_test_loader,
    build_train_loader,
)
from mask2former.data.datasets import register_all_shapes

WORKERS = pytest.mark.parametrize("workers", [0, 2])


@pytest.fixture
def damaged(shapes_root, tmp_path):
    """The tiny set, as damaged_*, with one training and one validation image cut short."""
    shutil.copytree(shapes_root / "shapes", tmp_path / "shapes")
    files = []
    for split in ("train", "val"):
        file = sorted((tmp_path / "shapes" / split).iterdir())[1]
        file.write_bytes(file.read_bytes()[:700])
        files.append(str(file))
    register_all_shapes(str(tmp_path), prefix="damaged")
    return files


def train_names(cfg, loader, count):
    return [d["file_name"] for batch in islice(iter(loader), count) for d in batch]


@WORKERS
def test_training_goes_on_with_another_image_and_counts(make_cfg, damaged, workers):
    overrides = ("DATALOADER.ASPECT_RATIO_GROUPING", False, "DATALOADER.NUM_WORKERS", workers)
    cfg = make_cfg("coco_panoptic_lsj", "damaged_panoptic_train", *overrides)
    loader = build_train_loader(cfg)
    names = train_names(cfg, loader, 12)  # two epochs of 12 images
    assert len(names) == 24
    assert damaged[0] not in names
    assert loader.corrupt_images.files() == [damaged[0]]
    assert loader.corrupt_images.count >= 2
    assert damaged[0] in loader.corrupt_images.summary()


def test_the_file_is_warned_about_once(make_cfg, damaged, caplog):
    overrides = ("DATALOADER.ASPECT_RATIO_GROUPING", False)
    cfg = make_cfg("mask_former_panoptic", "damaged_panoptic_train", *overrides)
    with caplog.at_level(logging.WARNING):
        train_names(cfg, build_train_loader(cfg), 18)
    assert sum(damaged[0] in record.getMessage() for record in caplog.records) == 1


def test_replacements_are_repeatable(make_cfg, damaged):
    cfg = make_cfg("coco_panoptic_lsj", "damaged_panoptic_train")
    first = train_names(cfg, build_train_loader(cfg), 10)
    assert train_names(cfg, build_train_loader(cfg, start_iter=4), 6) == first[8:]


def test_a_broken_ground_truth_file_is_replaced_and_named_as_well(make_cfg, damaged, tmp_path):
    file = sorted((tmp_path / "shapes" / "panoptic_train").iterdir())[0]
    file.write_bytes(b"")
    cfg = make_cfg("coco_panoptic_lsj", "damaged_panoptic_train")
    loader = build_train_loader(cfg)
    train_names(cfg, loader, 12)
    assert str(file) in loader.corrupt_images.files()


@WORKERS
def test_detectron2_s_own_mapper_is_guarded_too(make_cfg, damaged, workers):
    overrides = ("INPUT.MASK_FORMAT", "bitmask", "DATALOADER.NUM_WORKERS", workers)
    cfg = make_cfg("none", "damaged_instance_train", *overrides)
    loader = build_train_loader(cfg)
    assert damaged[0] not in train_names(cfg, loader, 12)
    assert loader.corrupt_images.files() == [damaged[0]]


def test_a_folder_of_broken_images_ends_training(make_cfg, damaged, tmp_path):
    for file in (tmp_path / "shapes" / "train").iterdir():
        file.write_bytes(b"")
    cfg = make_cfg("coco_panoptic_lsj", "damaged_panoptic_train")
    with pytest.raises(ImageDecodeError, match="20 training samples in a row"):
        next(iter(build_train_loader(cfg)))


@WORKERS
def test_evaluation_stops_and_names_the_image(make_cfg, damaged, workers):
    cfg = make_cfg("x", "damaged_panoptic_train", "DATALOADER.NUM_WORKERS", workers)
    with pytest.raises(ImageDecodeError, match=r"Cannot decode .*TEST\.ON_CORRUPT_IMAGE") as error:
        list(build_test_loader(cfg, "damaged_panoptic_val"))
    assert damaged[1] in str(error.value)


@WORKERS
@pytest.mark.parametrize("batch_size", [1, 2])
def test_evaluation_skips_and_counts_if_asked_to(make_cfg, damaged, workers, batch_size):
    overrides = ("TEST.ON_CORRUPT_IMAGE", "skip", "DATALOADER.NUM_WORKERS", workers)
    cfg = make_cfg("x", "damaged_panoptic_train", *overrides)
    loader = build_test_loader(cfg, "damaged_panoptic_val_with_sem_seg", batch_size)
    batches = list(loader)
    assert all(batches)
    assert sum(len(batch) for batch in batches) == 4
    assert loader.corrupt_images.files() == [damaged[1]]
    assert loader.corrupt_images.count == 1


def test_test_images_come_in_order_without_annotations(make_cfg, shapes_root):
    cfg = make_cfg("x", "tinyshapes_instance_train", "INPUT.MIN_SIZE_TEST", 50)
    loader = build_test_loader(cfg, "tinyshapes_instance_val", batch_size=2)
    assert len(loader) == 3
    samples = [sample for batch in loader for sample in batch]
    assert [s["image_id"] for s in samples] == sorted(s["image_id"] for s in samples)
    assert all("annotations" not in s for s in samples)
    assert all(min(s["image"].shape[1:]) == 50 for s in samples)
    assert loader.corrupt_images.summary() is None


def test_another_policy_is_refused(make_cfg, shapes_root):
    cfg = make_cfg("x", "tinyshapes_instance_train", "TEST.ON_CORRUPT_IMAGE", "ignore")
    with pytest.raises(ValueError, match=r'TEST\.ON_CORRUPT_IMAGE must be "raise" or "skip"'):
        build_test_loader(cfg, "tinyshapes_instance_val")


def test_the_log_s_file_goes_with_the_log():
    log = CorruptImageLog()
    path = log._path
    log.add("a\nb.jpg", "reason")
    assert log.files() == ["a\nb.jpg"]
    del log
    assert not os.path.exists(path)


def test_the_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(ImageDecodeError("Cannot decode x.jpg", "x.jpg")))
    assert (str(error), error.file_name) == ("Cannot decode x.jpg", "x.jpg")
