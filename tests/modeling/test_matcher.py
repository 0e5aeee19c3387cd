"""The matcher: costs of the paper, the best assignment, and what bad input gets."""

import itertools
import logging

import pytest
import torch
from parity_cases import deterministic_rand

from mask2former.modeling.errors import NonFiniteCostError
from mask2former.modeling.mask_predictions import MaskPredictions
from mask2former.modeling.matcher import (
    HungarianMatcher,
    batch_dice_loss,
    batch_sigmoid_ce_loss,
)
from mask2former.modeling.targets import PackedTargets

LOGITS = torch.tensor([[2.0, -1.0], [0.0, 1.0]])
TARGETS = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
QUERIES, CLASSES = 6, 4


def prediction(batch: int = 2, queries: int = QUERIES, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)

    def randn(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    return MaskPredictions(
        pred_logits=randn(batch, queries, CLASSES + 1),
        mask_embed=randn(batch, queries, 3),
        mask_features=randn(batch, 3, 8, 9),
    )


def ground_truth(*counts: int) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    return [
        {
            "labels": torch.randint(CLASSES, (n,), generator=generator),
            "masks": torch.rand(n, 32, 36, generator=generator) > 0.5,
        }
        for n in counts
    ]


def test_dice_matrix_has_the_reference_values():
    expected = torch.tensor([[0.123231, 0.204895], [0.381008, 0.181737]])
    torch.testing.assert_close(batch_dice_loss(LOGITS, TARGETS), expected, atol=1e-6, rtol=0)


def test_cross_entropy_matrix_has_the_reference_values():
    expected = torch.tensor([[0.220095, 0.720095], [1.003204, 0.503204]])
    torch.testing.assert_close(batch_sigmoid_ce_loss(LOGITS, TARGETS), expected, atol=1e-6, rtol=0)


def test_cross_entropy_matrix_is_exact_for_extreme_logits():
    logits = torch.tensor([[200.0, -200.0]])
    assert batch_sigmoid_ce_loss(logits, torch.tensor([[1.0, 0.0]])).tolist() == [[0.0]]
    assert batch_sigmoid_ce_loss(logits, torch.tensor([[0.0, 1.0]])).tolist() == [[200.0]]


@pytest.mark.parametrize("written_out", [False, True])
def test_batched_costs_equal_the_plain_formulation(monkeypatch, written_out):
    monkeypatch.setattr(torch, "rand", deterministic_rand)
    matcher = HungarianMatcher(cost_class=2, cost_mask=5, cost_dice=4, num_points=40)
    first = prediction(seed=0)
    second = MaskPredictions(
        pred_logits=first["pred_logits"].flip(1),
        mask_embed=first.mask_embed * 2,
        mask_features=first.mask_features,
    )
    layers = [first, second]
    targets = ground_truth(3, 2)
    given = [
        {**layer, "pred_masks": layer["pred_masks"]} if written_out else layer for layer in layers
    ]
    points = matcher._draw_points(2, 2, torch.device("cpu"))
    packed = PackedTargets(targets)
    for image, target in enumerate(targets):
        costs = matcher._image_costs(given, image, packed, points[:, image])
        for layer, cost in zip(layers, costs):
            expected = matcher.reference_costs(layer, target, image)
            torch.testing.assert_close(cost, expected, atol=1e-12, rtol=1e-12)


def test_assignment_has_the_least_total_cost():
    matcher = HungarianMatcher(num_points=30)
    outputs, targets = prediction(batch=1), ground_truth(3)
    torch.manual_seed(0)
    ((query, target),) = matcher(outputs, targets)
    torch.manual_seed(0)
    cost = matcher.reference_costs(outputs, targets[0], 0)
    best = min(
        sum(cost[q, t] for t, q in enumerate(chosen)).item()
        for chosen in itertools.permutations(range(QUERIES), 3)
    )
    assert cost[query, target].sum().item() == pytest.approx(best)
    assert query.dtype == target.dtype == torch.int64
    assert query.tolist() == sorted(query.tolist())


def test_points_are_drawn_once_a_prediction_and_image(monkeypatch):
    shapes = []

    def rand(*size, **kwargs):
        shapes.append(size)
        return deterministic_rand(*size, **kwargs)

    layers, targets = [prediction(seed=i) for i in range(3)], ground_truth(1, 2)
    monkeypatch.setattr(torch, "rand", rand)
    HungarianMatcher(num_points=7).match_layers(layers, targets)
    assert shapes == [(1, 7, 2)] * 6


def test_an_image_without_targets_has_no_pairs():
    (query, target), other = HungarianMatcher(num_points=5)(prediction(), ground_truth(0, 2))
    assert query.tolist() == target.tolist() == []
    assert len(other[0]) == 2


def test_more_targets_than_queries_warn_once_and_match_all_queries(caplog):
    matcher = HungarianMatcher(num_points=5)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            ((query, target),) = matcher(prediction(1, queries=2), ground_truth(4))
    assert query.tolist() == [0, 1]
    assert len(set(target.tolist())) == 2
    assert len(caplog.records) == 1
    assert "NUM_OBJECT_QUERIES" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_costs_name_the_predictions_and_images(value):
    layers = [prediction(batch=3, seed=i) for i in range(3)]
    layers[1].mask_embed[2, 0] = value
    layers[2]["pred_logits"][0, 1] = float("nan")
    with pytest.raises(NonFiniteCostError, match="aux 0, aux 1 for image") as error:
        HungarianMatcher(num_points=5).match_layers(layers, ground_truth(1, 1, 2))
    assert error.value.layer == "aux 0"
    assert error.value.layers == ["aux 0", "aux 1"]
    assert error.value.images == [0, 2]
    assert isinstance(error.value, FloatingPointError)


def test_bfloat16_predictions_are_compared_in_float32():
    outputs = prediction()
    half = {key: outputs[key].bfloat16() for key in ("pred_logits", "pred_masks")}
    targets = ground_truth(3, 2)
    points = torch.rand(1, 20, 2)
    targets = PackedTargets(targets)
    cost = HungarianMatcher(num_points=20)._image_costs([half], 0, targets, points)
    assert cost.dtype == torch.float32


def test_all_weights_zero_is_refused():
    with pytest.raises(ValueError, match="CLASS_WEIGHT"):
        HungarianMatcher(cost_class=0, cost_mask=0, cost_dice=0)
