"""Segments by small numbers: masks are compared and moved in one map, not one by one."""

import numpy as np

from detectron2.data import transforms as T
from mask2former.data.dataset_mappers.lazy_augmentation import augment
from mask2former.data.dataset_mappers.masks import equality_masks, number_segments


def test_segments_are_numbered_and_others_are_zero():
    ids = np.array([[7, 7, 70000], [0, 5, 16777215]], np.int32)
    numbered, numbers = number_segments(ids, [70000, 7, 99, 7])
    assert numbered.dtype == np.uint8
    masks = equality_masks(numbered, numbers)
    for mask, wanted in zip(masks, [70000, 7, 99, 7]):
        np.testing.assert_array_equal(mask.numpy(), ids == wanted)


def test_more_segments_than_a_byte_holds():
    ids = np.arange(600, dtype=np.int32).reshape(20, 30) * 1000
    wanted = list(range(0, 600_000, 2000))
    numbered, numbers = number_segments(ids, wanted)
    assert len(set(numbers)) == 300
    np.testing.assert_array_equal(
        equality_masks(numbered, numbers).numpy(), ids == np.array(wanted)[:, None, None]
    )


def test_no_segments():
    numbered, numbers = number_segments(np.ones((3, 4), np.int32), [])
    assert numbers == []
    assert not numbered.any()


def test_many_segments_survive_augmentations_that_look_at_pixels():
    numbered = np.arange(300, dtype=np.int32).reshape(15, 20)
    image = np.zeros((15, 20, 3), np.uint8)
    view = augment([T.RandomContrast(1, 1), T.FixedSizeCrop((18, 22))], image)
    moved = view.segments(numbered)
    np.testing.assert_array_equal(moved[:15, :20], numbered)
    assert not moved[15:].any()
    assert not moved[:, 20:].any()
