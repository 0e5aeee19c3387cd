"""Many draws of the augmentations follow the published distributions."""

import numpy as np
import pytest

from detectron2.data import transforms as T
from mask2former.data.dataset_mappers.augmentations import large_scale_jitter, resize_crop_flip
from mask2former.data.dataset_mappers.lazy_augmentation import StandIn

DRAWS = 3000


def drawn_steps(augmentations, height, width, labels=None, draws=DRAWS):
    """The transforms of many draws; no pixel is touched."""
    combined = T.AugmentationList(augmentations)
    for _ in range(draws):
        stand_in = StandIn((height, width, 3), labels)
        combined(stand_in)
        yield stand_in.steps


def first(steps, kind):
    return next((s for s in steps if isinstance(s, kind)), None)


def assert_uniform(values, low, high):
    """Kolmogorov-Smirnov distance to the uniform distribution, at about the 0.1 % level."""
    values = np.sort((np.asarray(values) - low) / (high - low))
    assert values[0] >= -1e-3
    assert values[-1] <= 1 + 1e-3
    distance = np.abs(values - (np.arange(len(values)) + 0.5) / len(values)).max()
    assert distance < 1.95 / np.sqrt(len(values))


@pytest.fixture
def cfg(make_cfg, seeded_numpy):
    return make_cfg("coco_panoptic_lsj", "tinyshapes_panoptic_train", "INPUT.IMAGE_SIZE", 1024)


def test_jitter_scales_are_uniform(cfg):
    steps = drawn_steps(large_scale_jitter(cfg), 480, 640)
    scales = [first(s, T.ResizeTransform).new_w / 1024 for s in steps]
    assert_uniform(scales, 0.1, 2.0)


def test_jitter_crops_are_uniform_and_share_one_draw_for_both_axes(cfg):
    shares = []
    for steps in drawn_steps(large_scale_jitter(cfg), 640, 640):
        resize, crop = first(steps, T.ResizeTransform), first(steps, T.CropTransform)
        if resize.new_w > 1200:
            shares.append(crop.x0 / (resize.new_w - 1024))
            assert crop.x0 == crop.y0
        elif resize.new_w <= 1024:
            assert (crop.x0, crop.y0) == (0, 0)
    assert len(shares) > 1000
    assert_uniform(shares, 0, 1)


@pytest.mark.parametrize(
    ("flip", "kind"), [("horizontal", T.HFlipTransform), ("vertical", T.VFlipTransform)]
)
def test_jitter_flips_half_of_the_images(cfg, flip, kind):
    cfg.INPUT.RANDOM_FLIP = flip
    flips = [first(s, kind) is not None for s in drawn_steps(large_scale_jitter(cfg), 48, 64)]
    assert abs(np.mean(flips) - 0.5) < 0.03


def test_jitter_without_flip(cfg):
    cfg.INPUT.RANDOM_FLIP = "none"
    steps = list(drawn_steps(large_scale_jitter(cfg), 48, 64, draws=100))
    assert not any(first(s, (T.HFlipTransform, T.VFlipTransform)) for s in steps)


def test_shortest_edges_are_chosen_evenly_and_flips_ignore_random_flip(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN = (100, 200, 300)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"
    cfg.INPUT.RANDOM_FLIP = "none"
    steps = list(drawn_steps(resize_crop_flip(cfg, category_crop=True), 400, 600))
    counts = np.bincount([first(s, T.ResizeTransform).new_h for s in steps])
    assert set(np.flatnonzero(counts)) == {100, 200, 300}
    assert (np.abs(counts[[100, 200, 300]] / DRAWS - 1 / 3) < 0.03).all()
    flips = [first(s, T.HFlipTransform) is not None for s in steps]
    assert abs(np.mean(flips) - 0.5) < 0.03


def test_the_longer_side_is_limited(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN = (300,)
    cfg.INPUT.MAX_SIZE_TRAIN = 400
    steps = next(drawn_steps(resize_crop_flip(cfg, category_crop=True), 400, 800, draws=1))
    resize = first(steps, T.ResizeTransform)
    assert (resize.new_h, resize.new_w) == (200, 400)


def test_plain_crops_are_uniform(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (400,), 4000
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"
    cfg.INPUT.CROP.SIZE = [100, 200]
    crops = [
        first(s, T.CropTransform)
        for s in drawn_steps(resize_crop_flip(cfg, category_crop=False), 400, 600)
    ]
    assert {(c.h, c.w) for c in crops} == {(100, 200)}
    assert_uniform([c.y0 for c in crops], 0, 300)
    assert_uniform([c.x0 for c in crops], 0, 400)


def test_category_crops_avoid_single_labels(cfg):
    labels = np.zeros((200, 200), np.uint8)
    labels[:, 150:] = 1
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (200,), 4000
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE = True, "absolute"
    cfg.INPUT.CROP.SIZE = [60, 60]
    shares = {}
    for limit in (1.0, 0.75):
        cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = limit
        augmentations = resize_crop_flip(cfg, category_crop=True)
        crops = [
            first(s, T.CropTransform)
            for s in drawn_steps(augmentations, 200, 200, labels, draws=600)
        ]
        largest = [
            max(np.bincount(labels[c.y0 : c.y0 + c.h, c.x0 : c.x0 + c.w].ravel())) / 3600
            for c in crops
        ]
        shares[limit] = np.mean(np.array(largest) < 0.75)
    # One crop in about 4.7 is good; ten tries miss with probability 0.79 ** 10 = 0.09.
    assert shares[1.0] == pytest.approx(0.21, abs=0.06)
    assert shares[0.75] == pytest.approx(0.91, abs=0.05)
