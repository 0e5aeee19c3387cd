"""The losses equal a plain formulation, on lazy and on written-out masks."""

import pytest
import torch
import torch.nn.functional as F
from parity_cases import deterministic_rand
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mask2former.modeling import criterion as module
from mask2former.modeling.criterion import (
    SetCriterion,
    calculate_uncertainty,
    dice_loss,
    sigmoid_ce_loss,
)
from mask2former.modeling.mask_predictions import MaskPredictions
from mask2former.modeling.matcher import HungarianMatcher

LAYERS, BATCH, QUERIES, CLASSES, CHANNELS, POINTS = 3, 2, 5, 4, 6, 32
LOGITS = torch.tensor([[2.0, -1.0], [0.0, 1.0]])
TARGETS = torch.tensor([[1.0, 0.0], [1.0, 1.0]])


def rand64(*size, **kwargs) -> Tensor:
    return deterministic_rand(*size).double()


def make_criterion(**options) -> SetCriterion:
    matcher = HungarianMatcher(cost_class=2, cost_mask=5, cost_dice=5, num_points=POINTS)
    settings = {
        "weight_dict": {},
        "eos_coef": 0.125,
        "losses": ["labels", "masks"],
        "num_points": POINTS,
        "oversample_ratio": 3.0,
        "importance_sample_ratio": 0.75,
    }
    return SetCriterion(CLASSES, matcher=matcher, **(settings | options))


def leaves(dtype=torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {
        "logits": (LAYERS, BATCH, QUERIES, CLASSES + 1),
        "embed": (LAYERS, BATCH, QUERIES, CHANNELS),
        "features": (BATCH, CHANNELS, 12, 14),
    }
    return {
        name: torch.randn(*size, generator=generator, dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
        for name, size in sizes.items()
    }


def predictions(leaf: dict[str, Tensor], lazy: bool) -> dict:
    layers = []
    for logits, embed in zip(leaf["logits"], leaf["embed"]):
        if lazy:
            layer = MaskPredictions(
                pred_logits=logits, mask_embed=embed, mask_features=leaf["features"]
            )
        else:
            masks = torch.einsum("bqc,bchw->bqhw", embed, leaf["features"])
            layer = {"pred_logits": logits, "pred_masks": masks}
        layers.append(layer)
    outputs = layers.pop()
    outputs["aux_outputs"] = layers
    return outputs


def ground_truth(*counts: int) -> list[dict]:
    generator = torch.Generator().manual_seed(3)
    return [
        {
            "labels": torch.randint(CLASSES, (n,), generator=generator),
            "masks": torch.rand(n, 48, 56, generator=generator) > 0.6,
        }
        for n in counts
    ]


def plain_losses(criterion: SetCriterion, outputs: dict, targets: list[dict]) -> dict:
    """One prediction after another, whole masks in floating point, no batching."""
    num_masks = max(sum(len(t["labels"]) for t in targets), 1)
    losses = {}
    for i, layer in enumerate([outputs, *outputs["aux_outputs"]]):
        suffix = "" if i == 0 else f"_{i - 1}"
        classes = torch.full((BATCH, QUERIES), CLASSES)
        masks, truth = [], []
        for image, target in enumerate(targets):
            cost = criterion.matcher.reference_costs(layer, target, image)
            for query, row in zip(*linear_sum_assignment(cost)):
                classes[image, query] = target["labels"][row]
                masks.append(layer["pred_masks"][image, query])
                truth.append(target["masks"][row].double())
        weight = torch.ones(CLASSES + 1, dtype=torch.float64)
        weight[CLASSES] = criterion.eos_coef
        losses[f"loss_ce{suffix}"] = F.cross_entropy(layer["pred_logits"].mT, classes, weight)

        masks, truth = torch.stack(masks)[:, None], torch.stack(truth)[:, None]
        points = module.get_uncertain_point_coords_with_randomness(
            masks.detach(), calculate_uncertainty, POINTS, 3.0, 0.75
        )
        grid = 2 * points[:, :, None] - 1
        logits = F.grid_sample(masks, grid, align_corners=False)[:, 0, :, 0]
        labels = F.grid_sample(truth, grid, align_corners=False)[:, 0, :, 0]
        entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        losses[f"loss_mask{suffix}"] = entropy.mean(1).sum() / num_masks
        probs = logits.sigmoid()
        dice = (2 * (probs * labels).sum(1) + 1) / (probs.sum(1) + labels.sum(1) + 1)
        losses[f"loss_dice{suffix}"] = (1 - dice).sum() / num_masks
    return losses


def test_losses_have_the_reference_values():
    assert sigmoid_ce_loss(LOGITS, TARGETS, 2).item() == pytest.approx(0.3616497, abs=1e-6)
    assert dice_loss(LOGITS, TARGETS, 2).item() == pytest.approx(0.1524840, abs=1e-6)


@pytest.mark.parametrize("counts", [(3, 2), (0, 4), (7, 1)])
@pytest.mark.parametrize("lazy", [True, False])
def test_losses_and_gradients_equal_the_plain_formulation(monkeypatch, counts, lazy):
    monkeypatch.setattr(torch, "rand", rand64)
    criterion, targets = make_criterion(), ground_truth(*counts)
    results = []
    for path in ("batched", "plain"):
        leaf = leaves()
        if path == "batched":
            losses = criterion(predictions(leaf, lazy), targets)
        else:
            losses = plain_losses(criterion, predictions(leaf, lazy=False), targets)
        gradients = torch.autograd.grad(sum(losses.values()), list(leaf.values()))
        results.append((losses, gradients))
    (losses, gradients), (expected_losses, expected_gradients) = results
    assert set(losses) == set(expected_losses)
    for name, expected in expected_losses.items():
        torch.testing.assert_close(losses[name], expected, rtol=1e-10, atol=1e-12, msg=name)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-8, atol=1e-12)


def test_without_any_target_mask_losses_are_zero_with_a_gradient_path():
    leaf = leaves()
    losses = make_criterion()(predictions(leaf, lazy=True), ground_truth(0, 0))
    assert losses["loss_mask"] == losses["loss_dice_0"] == 0
    assert losses["loss_ce"] > 0
    (losses["loss_mask"] + losses["loss_dice_1"]).backward()
    assert leaf["features"].grad.abs().sum() == 0
    assert leaf["embed"].grad.abs().sum() == 0


def test_only_the_losses_asked_for_are_computed():
    losses = make_criterion(losses=["labels"])(predictions(leaves(), True), ground_truth(1, 2))
    assert set(losses) == {"loss_ce", "loss_ce_0", "loss_ce_1"}


def test_losses_take_what_the_matcher_gives(monkeypatch):
    # The published way to call one loss: plain lists of targets and of index pairs.
    monkeypatch.setattr(torch, "rand", rand64)
    criterion, targets = make_criterion(), ground_truth(3, 2)
    outputs = predictions(leaves(), lazy=False)
    together = criterion(outputs, targets)
    indices = criterion.matcher(outputs, targets)
    single = criterion.loss_masks(outputs, targets, indices, 5)
    single |= criterion.get_loss("labels", outputs, targets, indices, 5)
    for name, value in single.items():
        torch.testing.assert_close(value, together[name])


def test_a_matcher_that_knows_one_prediction_at_a_time_works(monkeypatch):
    class Identity(torch.nn.Module):
        def forward(self, outputs, targets):
            index = torch.arange(2)
            return [(index, index) for _ in targets]

    criterion = make_criterion()
    criterion.matcher = Identity()
    losses = criterion(predictions(leaves(), lazy=True), ground_truth(2, 2))
    assert len(losses) == 3 * LAYERS


class _OtherOrder(HungarianMatcher):
    """Somebody's own rule: the pairs of the published matcher in another order."""

    def forward(self, outputs, targets):
        self.calls = getattr(self, "calls", 0) + 1
        return [
            (query.flip(0), target.flip(0)) for query, target in super().forward(outputs, targets)
        ]


def test_a_subclass_with_its_own_forward_is_asked_for_every_prediction():
    criterion = make_criterion()
    criterion.matcher = _OtherOrder(num_points=POINTS)
    criterion(predictions(leaves(), lazy=True), ground_truth(2, 2))
    assert criterion.matcher.calls == LAYERS


@pytest.mark.parametrize("name", ["forward", "memory_efficient_forward"])
def test_a_replaced_method_of_the_matcher_is_called_for_every_prediction(monkeypatch, name):
    original, calls = getattr(HungarianMatcher, name), []

    def spy(self, outputs, targets):
        calls.append(len(targets))
        return original(self, outputs, targets)

    monkeypatch.setattr(HungarianMatcher, name, spy)
    make_criterion()(predictions(leaves(), lazy=True), ground_truth(3, 2))
    assert calls == [2] * LAYERS


def test_a_replaced_loss_is_called(monkeypatch):
    criterion = make_criterion(losses=["labels"])
    monkeypatch.setattr(criterion, "loss_labels", lambda *args: {"mine": 1})
    losses = criterion(predictions(leaves(), lazy=True), ground_truth(1, 1))
    assert losses == {"mine": 1, "mine_0": 1, "mine_1": 1}


def test_hooks_of_the_matcher_see_every_prediction_and_change_nothing(monkeypatch):
    monkeypatch.setattr(torch, "rand", rand64)
    criterion, seen = make_criterion(), []
    outputs, targets = predictions(leaves(), lazy=True), ground_truth(3, 2)
    expected = criterion(outputs, targets)
    criterion.matcher.register_forward_hook(lambda *args: seen.append(args[-1]))
    losses = criterion(outputs, targets)
    assert [[len(query) for query, _ in pairs] for pairs in seen] == [[3, 2]] * LAYERS
    torch.testing.assert_close(losses, expected)


def test_number_of_masks_is_averaged_over_processes(monkeypatch):
    def all_reduce(total):
        total.fill_(18)  # 5 here, 13 elsewhere

    monkeypatch.setattr(torch, "rand", rand64)
    criterion, targets = make_criterion(), ground_truth(3, 2)
    alone = criterion(predictions(leaves(), lazy=True), targets)
    monkeypatch.setattr(module.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    together = criterion(predictions(leaves(), lazy=True), targets)
    torch.testing.assert_close(together["loss_dice"], alone["loss_dice"] * 5 / 9)
    torch.testing.assert_close(together["loss_ce"], alone["loss_ce"])


def test_bfloat16_predictions_give_float32_losses():
    leaf = leaves(torch.bfloat16)
    losses = make_criterion()(predictions(leaf, lazy=True), ground_truth(3, 2))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    assert leaf["features"].grad.isfinite().all()


def test_unknown_loss_is_named():
    with pytest.raises(ValueError, match="unknown loss 'boxes'; known: labels, masks"):
        make_criterion(losses=["boxes"])(predictions(leaves(), True), ground_truth(1, 1))


def test_uncertainty_is_greatest_at_the_boundary():
    logits = torch.tensor([[[-3.0, 0.5, 2.0]]])
    assert calculate_uncertainty(logits).tolist() == [[[-3.0, -0.5, -2.0]]]
