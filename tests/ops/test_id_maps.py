"""The compiled steps of panoptic evaluation equal the PNG specification and sorting."""

import numpy as np
import pytest

from mask2former.evaluation.panoptic_statistics import joint_areas
from mask2former.ops import id_maps, use_implementation
from mask2former.ops.libraries import ID_MAPS, MissingLibrary, load


@pytest.fixture(autouse=True)
def kernel():
    try:
        return load("cpu", ID_MAPS)
    except MissingLibrary as error:
        pytest.skip(str(error))


def plainly_unfiltered(rows: np.ndarray, width: int) -> np.ndarray:
    """Section 9 of the PNG specification, byte by byte, for three bytes a pixel."""
    pixels = np.zeros((len(rows) + 1, 3 * width + 3), int)  # a zero row and a zero pixel in front
    for y, (kind, *rest) in enumerate(rows.tolist(), start=1):
        for x, value in enumerate(rest, start=3):
            a, b, c = pixels[y, x - 3], pixels[y - 1, x], pixels[y - 1, x - 3]
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            pixels[y, x] = (value + (0, a, b, (a + b) // 2, paeth)[kind]) % 256
    rgb = pixels[1:, 3:].reshape(len(rows), width, 3)
    return rgb @ (1, 256, 65536)


@pytest.mark.parametrize("noise", [0, 0.02, 0.3, 1])
@pytest.mark.parametrize("width", [1, 7, 8, 9, 16, 61])
def test_filters_are_undone_as_specified(width, noise):
    rng = np.random.default_rng(width)
    rows = rng.integers(0, 256, (24, 1 + 3 * width)) * (rng.random((24, 1 + 3 * width)) < noise)
    rows[:, 0] = rng.integers(0, 5, 24)
    rows[0, 1:] = rng.integers(0, 256, 3 * width)  # something to predict from
    found = id_maps.undo_filters(rows.astype(np.uint8).ravel(), 24, width)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, plainly_unfiltered(rows, width))


def test_a_filter_that_does_not_exist_is_refused():
    rows = np.zeros((2, 4), np.uint8)
    rows[1, 0] = 5
    assert id_maps.undo_filters(rows.ravel(), 2, 1) is None
    with pytest.raises(ValueError, match="8 uint8 are not 2 rows of 2 pixels"):
        id_maps.undo_filters(rows.ravel(), 2, 2)


def label_maps() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(2)
    areas = np.kron(rng.integers(0, 2**24, (5, 4)), np.ones((9, 11), int))
    shapes = {f"{n} pixels": rng.integers(0, 2, (2, 1, n)) for n in (0, 1, 2, 8, 9, 511, 513, 514)}
    return {name: tuple(maps.astype(np.uint32)) for name, maps in shapes.items()} | {
        "areas": (areas.astype(np.uint32), np.roll(areas, 5, 1).astype(np.uint32)),
        "turned": (areas.astype(np.uint32).T, np.roll(areas, 5, 0).astype(np.uint32).T),
        "noise": tuple(rng.integers(0, 40, (2, 37, 53), dtype=np.uint32)),
        "large ids": tuple((2**32 - rng.integers(1, 4, (2, 30, 70))).astype(np.uint32)),
    }


@pytest.mark.parametrize("name", label_maps())
def test_pairs_are_counted_as_without_the_kernel(name):
    a, b = label_maps()[name]
    for found, expected in zip(id_maps.joint_areas(a, b), joint_areas(a, b, fast=False)):
        assert found.dtype == expected.dtype == np.int64
        np.testing.assert_array_equal(found, expected)


def test_more_pairs_than_its_table_holds_are_left_to_numpy():
    a, b = np.zeros((2, 3, id_maps.MOST_PAIRS), np.uint32)
    b[1] = np.arange(id_maps.MOST_PAIRS)
    assert id_maps.joint_areas(a, b).shape == (3, id_maps.MOST_PAIRS)
    a[2, 5] = 1
    assert id_maps.joint_areas(a, b) is None
    assert len(joint_areas(a, b)[0]) == id_maps.MOST_PAIRS + 1


def test_maps_that_do_not_fit_are_refused():
    ids = np.zeros((2, 3), np.uint32)
    for other in (ids.T, ids.astype(np.int32)):
        with pytest.raises(ValueError, match="expected two uint32 maps"):
            id_maps.joint_areas(ids, other)


def test_the_reference_can_be_asked_for():
    for mode in ("auto", "reference"):
        with use_implementation(mode):
            assert id_maps.applies() == (mode == "auto")
