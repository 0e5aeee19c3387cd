"""Run lengths are pycocotools', to the letter."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mask2former.evaluation.run_lengths import encode_labels, encode_masks


def by_pycocotools(mask: np.ndarray) -> dict:
    rle = mask_util.encode(np.asfortranarray(mask, np.uint8))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


SIDES = st.integers(1, 9)


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 4), SIDES, SIDES)))
def test_masks_of_any_shape_are_encoded_as_by_pycocotools(masks):
    assert encode_masks(masks) == [by_pycocotools(mask) for mask in masks]


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(SIDES, SIDES), elements=st.integers(0, 4)))
def test_labels_are_encoded_as_the_masks_they_stand_for(labels):
    expected = {k: by_pycocotools(labels == k) for k in np.unique(labels).tolist()}
    encoded = encode_labels(labels)
    assert encoded == expected
    assert list(encoded) == sorted(encoded)


SHAPES = {
    "empty": np.s_[:0],
    "full": np.s_[:],
    "first pixel": np.s_[0, 0],
    "last pixel": np.s_[-1, -1],
    "whole columns": np.s_[:, 3:90],
    "whole columns with a gap": np.s_[:, 3:90:5],
    "last columns": np.s_[:, 500:],
    "a long way from the start": np.s_[900:903, 650:],
}


@pytest.mark.parametrize("region", SHAPES.values(), ids=SHAPES.keys())
def test_large_runs_and_edges(region):
    mask = np.zeros((1024, 700), bool)
    mask[region] = True
    noise = np.random.default_rng(0).random(mask.shape) < 0.5
    masks = np.stack([mask, ~mask, mask & noise, mask | noise])
    assert encode_masks(masks) == [by_pycocotools(mask) for mask in masks]


def test_no_masks_have_no_runs():
    assert encode_masks(np.zeros((0, 4, 5), bool)) == []
