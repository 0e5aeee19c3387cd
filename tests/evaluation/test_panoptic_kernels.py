"""Panoptic quality is the same to the bit with and without compiled kernels."""

import numpy as np
import pytest

from mask2former.benchmark.evaluators.panoptic_published import NAME, predicted_pairs
from mask2former.evaluation import COCOPanopticEvaluator
from mask2former.evaluation.panoptic_statistics import image_statistics
from mask2former.ops import id_maps

pytestmark = pytest.mark.skipif(not id_maps.applies(), reason="the kernel was not built")
CATEGORIES = set(range(1, 6))


def random_image(seed: int) -> tuple:
    """Maps and segments: void, crowds, single pixels, ids over 2^16, sometimes no prediction."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 60, 2))
    ids = rng.choice(2**24 - 1, 9, replace=False) + 1
    ids[:2] = 70_000, 2**24 - 1
    cells = np.kron(rng.integers(0, 10, shape), np.ones((7, 7), int))[: shape[0], : shape[1]]
    gt = np.append(ids, 0)[cells].astype(np.uint32)
    moved = np.roll(cells, rng.integers(-2, 3, 2), (0, 1))
    pred = np.append(np.arange(1, 10) * 9001, 0)[moved].astype(np.uint32)
    gt.flat[0], pred.flat[-1] = ids[3], 65_537  # one pixel each, often the only ones
    if seed % 5 == 0:
        pred[:] = 0
    gt_segments = [
        {
            "id": i,
            "category_id": int(rng.integers(1, 6)),
            "area": int((gt == i).sum()),
            "iscrowd": int(rng.random() < 0.2),
        }
        for i in np.unique(gt).tolist()
        if i and rng.random() < 0.9  # some pixels belong to nothing that is listed
    ]
    of = {s["id"]: s["category_id"] for s in gt_segments}
    guess = dict(zip((np.arange(1, 10) * 9001).tolist(), ids.tolist()))
    pred_segments = [
        {"id": i, "category_id": of.get(guess.get(i), int(rng.integers(1, 6)))}
        for i in np.unique(pred).tolist()
        if i
    ]
    return gt, gt_segments, pred, pred_segments


def test_statistics_of_images_are_the_same():
    counted = np.zeros(6)
    for seed in range(60):
        image = random_image(seed)
        fast = image_statistics(*image, CATEGORIES, seed)
        plain = image_statistics(*image, CATEGORIES, seed, fast=False)
        assert list(fast) == list(plain)
        for category, values in plain.items():
            np.testing.assert_array_equal(fast[category], values)
            counted += values
    assert (counted > 0).all()  # matches, false positives and false negatives all occur


def test_contradictions_are_named_alike():
    gt, gt_segments, pred, pred_segments = random_image(1)
    for wrong in (
        pred_segments[1:],
        [*pred_segments, {"id": 123, "category_id": 1}],
        [{**segment, "category_id": 77} for segment in pred_segments],
    ):
        said = []
        for fast in (True, False):
            with pytest.raises(KeyError) as error:
                image_statistics(gt, gt_segments, pred, wrong, CATEGORIES, 3, fast)
            said.append(str(error.value))
        assert said[0] == said[1]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_the_evaluator_gives_the_same_bits(dtype, tmp_path, monkeypatch):
    _, _, pairs = predicted_pairs(tmp_path, 4)
    calls = []
    for name in ("undo_filters", "joint_areas"):
        monkeypatch.setattr(id_maps, name, _counted(getattr(id_maps, name), calls))
    results = []
    for fast in (True, False):
        calls.clear()
        evaluator = COCOPanopticEvaluator(NAME, details=True, fast=fast)
        for record, output in pairs:
            pixels, segments = output["panoptic_seg"]
            given = pixels.numpy().astype(dtype)
            evaluator.process([record], [{"panoptic_seg": (given, segments)}])
        results.append(evaluator.evaluate()["panoptic_seg"])
        assert len(calls) == (2 * len(pairs) if fast else 0)
    np.testing.assert_equal(results[0], results[1])


def _counted(function, calls: list):
    def call(*arguments):
        calls.append(function)
        return function(*arguments)

    return call
