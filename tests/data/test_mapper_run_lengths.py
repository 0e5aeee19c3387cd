"""Painting only an object's box gives the pixels that pycocotools decodes."""

import numpy as np
import pytest
from pycocotools import mask as mask_api

from mask2former.data.dataset_mappers.annotations import rasterise
from mask2former.data.dataset_mappers.run_lengths import paint, run_lengths


def painted(rle, shape):
    plane = np.zeros(shape, np.uint8)
    paint(rle, plane)
    return plane


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_random_masks_come_back(share):
    rng = np.random.default_rng(0)
    for _ in range(100):
        mask = (rng.random(rng.integers(1, 40, 2)) < share).astype(np.uint8)
        rle = mask_api.encode(np.asfortranarray(mask))
        np.testing.assert_array_equal(painted(rle, mask.shape), mask)


def test_run_lengths_of_several_characters_and_both_signs():
    counts = [70000, 3, 12, 40000, 5, 1, 100000, 2]
    rle = mask_api.frPyObjects({"size": [1000, 211], "counts": [*counts, 977]}, 1000, 211)
    assert run_lengths(rle["counts"]).tolist() == [*counts, 977]
    assert run_lengths(b"").tolist() == []


def test_polygons_give_what_pycocotools_rasterises():
    rng = np.random.default_rng(1)
    height, width = 70, 90
    outlines = [
        [rng.uniform(0, (width, height), (n, 2)) for n in sizes] for sizes in ((3,), (8, 5), (20,))
    ]
    outlines += [[], [np.array([[0, 0], [width, 0], [width, height], [0, height]], float)]]
    stack = rasterise(outlines, (height, width))
    assert stack.dtype == np.uint8
    for mask, polygons in zip(stack, outlines):
        flat = [p.ravel() for p in polygons]
        expected = np.zeros((height, width), np.uint8)
        if flat:
            expected = mask_api.decode(mask_api.merge(mask_api.frPyObjects(flat, height, width)))
        np.testing.assert_array_equal(mask, expected)
