"""The Intra-Batch Supervision loss equals a plain formulation, for every batch there can be."""

import logging

import numpy as np
import parity_models
import pytest
import torch
import torch.nn.functional as F
from parity_cases import deterministic_rand
from torch import Tensor

from detectron2.data import MetadataCatalog
from mask2former.modeling.criterion import SetCriterion
from mask2former.modeling.ibs import (
    IntraBatchSupervision,
    build_intra_batch_supervision,
    draw_partners,
)
from mask2former.modeling.mask_predictions import MaskPredictions
from mask2former.modeling.matcher import HungarianMatcher

LAYERS, BATCH, QUERIES, CLASSES, CHANNELS, POINTS = 4, 3, 5, 4, 6, 32
THINGS = (0, 2)
PARTNERS = [2, 0, 1]
LABELS = [[0, 1, 2], [3], [2, 0]]  # of things: 2, none, 2


class FixedMatcher(torch.nn.Module):
    """Query i is matched with target n - 1 - i."""

    def forward(self, outputs: dict, targets: list[dict]):
        sizes = [len(target["labels"]) for target in targets]
        return [(torch.arange(n), torch.arange(n).flip(0)) for n in sizes]


def make(loss: IntraBatchSupervision | None = None, *, sampled: bool = False) -> SetCriterion:
    criterion = SetCriterion(
        CLASSES,
        matcher=FixedMatcher(),
        weight_dict={},
        eos_coef=0.1,
        losses=[],
        num_points=POINTS,
        oversample_ratio=3.0,
        importance_sample_ratio=0.75,
    )
    if loss is None:
        points = criterion.uncertain_points if sampled else None
        loss = IntraBatchSupervision(
            THINGS, sample_points=points, partners=lambda batch: PARTNERS[:batch]
        )
    criterion.add_loss("ibs", loss)
    return criterion


def leaves(batch: int = BATCH, dtype=torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {
        "logits": (LAYERS, batch, QUERIES, CLASSES + 1),
        "embed": (LAYERS, batch, QUERIES, CHANNELS),
        "features": (batch, CHANNELS, 12, 14),
    }
    return {
        name: torch.randn(*size, generator=generator, dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
        for name, size in sizes.items()
    }


def predictions(leaf: dict[str, Tensor]) -> dict:
    layers = [
        MaskPredictions(pred_logits=logits, mask_embed=embed, mask_features=leaf["features"])
        for logits, embed in zip(leaf["logits"], leaf["embed"])
    ]
    outputs = layers.pop()
    outputs["aux_outputs"] = layers
    return outputs


def ground_truth(*labels: list[int]) -> list[dict]:
    return [
        {"labels": torch.tensor(x, dtype=torch.int64), "masks": torch.zeros(len(x), 48, 56).bool()}
        for x in labels
    ]


def plain_loss(embed: Tensor, features: Tensor, points: Tensor | None) -> Tensor:
    """Of one prediction: one mask after another, the focal loss as its paper writes it."""
    masks = []
    for image, labels in enumerate(LABELS):
        for query, label in enumerate(reversed(labels)):
            if label in THINGS:
                other = features[PARTNERS[image]]
                masks.append(torch.einsum("c,chw->hw", embed[image, query], other))
    losses = []
    for i, mask in enumerate(masks):
        logits = mask.flatten()
        if points is not None:
            grid = 2 * points[i][None, None] - 1
            logits = F.grid_sample(mask[None, None], grid, align_corners=False).flatten()
        p_t = 1 - logits.sigmoid()  # of the true class, background
        losses.append((-(1 - 0.25) * (1 - p_t) ** 2 * p_t.log()).mean())
    return sum(losses) / len(losses)


@pytest.mark.parametrize("sampled", [True, False])
def test_loss_and_gradients_equal_the_plain_formulation(monkeypatch, sampled):
    def rand64(*size, **kwargs):
        return deterministic_rand(*size).double()

    monkeypatch.setattr(torch, "rand", rand64)
    criterion, leaf, drawn = make(sampled=sampled), leaves(), []
    if sampled:
        loss = criterion.loss_functions["ibs"]
        loss.sample_points = lambda m: drawn.append(criterion.uncertain_points(m)) or drawn[-1]
    losses = criterion(predictions(leaf), ground_truth(*LABELS))
    assert set(losses) == {"loss_mask_ibs", "loss_mask_ibs_1", "loss_mask_ibs_2"}
    expected = {}
    for i, (name, layer) in enumerate(zip(losses, (LAYERS - 1, 1, 2))):
        points = drawn[i] if sampled else None
        expected[name] = plain_loss(leaf["embed"][layer], leaf["features"], points)
        torch.testing.assert_close(losses[name], expected[name])
    variables = [leaf["embed"], leaf["features"]]
    torch.testing.assert_close(
        torch.autograd.grad(sum(losses.values()), variables),
        torch.autograd.grad(sum(expected.values()), variables),
    )


def test_every_image_draws_another_one():
    np.random.seed(0)
    assert draw_partners(2) == [1, 0]
    draws = np.array([draw_partners(4) for _ in range(400)])
    assert (draws != np.arange(4)).all()
    for image in range(4):
        counts = np.bincount(draws[:, image], minlength=4)
        assert counts[image] == 0 and counts.sum() == 400
        assert (np.delete(counts, image) > 80).all()


def test_partners_are_drawn_for_each_prediction_the_first_one_first():
    calls = []

    def partners(batch: int) -> list[int]:
        calls.append([(image + 1 + len(calls) % 2) % batch for image in range(batch)])
        return calls[-1]

    outputs = predictions(leaves())
    make(IntraBatchSupervision(THINGS, partners=partners))(outputs, ground_truth(*LABELS))
    assert len(calls) == LAYERS
    assert outputs["ibs_partners"] == calls[-1]
    assert (
        [layer.get("ibs_partners") for layer in outputs["aux_outputs"]]
        == [
            None,  # the raw queries, which have no loss
            *calls[1:-1],
        ]
    )


def test_without_auxiliary_predictions_the_last_has_a_loss():
    outputs = predictions(leaves())
    del outputs["aux_outputs"]
    assert set(make()(outputs, ground_truth(*LABELS))) == {"loss_mask_ibs"}


@pytest.mark.parametrize("labels", [([1], [3], []), ([], [], [])])
@pytest.mark.parametrize("sampled", [True, False])
def test_without_things_it_is_zero_with_a_gradient_path(labels, sampled):
    leaf = leaves()
    losses = make(sampled=sampled)(predictions(leaf), ground_truth(*labels))
    assert len(losses) == LAYERS - 1 and all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert (leaf["features"].grad == 0).all() and (leaf["embed"].grad == 0).all()


@pytest.mark.parametrize("sampled", [True, False])
def test_an_image_alone_has_no_loss_which_is_said_once(caplog, sampled):
    criterion, leaf = make(sampled=sampled), leaves(batch=1)
    for _ in range(2):
        losses = criterion(predictions(leaf), ground_truth([0, 2]))
    assert len(losses) == LAYERS - 1 and all(loss == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert (leaf["features"].grad == 0).all()
    assert [r.message.split(":")[0] for r in caplog.records] == [
        "MODEL.MASK_FORMER.APPLY_IBS has no effect with one image per process"
    ]


def test_a_thing_class_with_label_zero_counts_unless_told_otherwise():
    def loss(labels: list[int], count_class_zero: bool) -> float:
        ibs = IntraBatchSupervision(
            THINGS, count_class_zero=count_class_zero, partners=lambda batch: [1, 0]
        )
        outputs = predictions(leaves(batch=2))
        return make(ibs)(outputs, ground_truth(labels, [])).popitem()[1].item()

    assert loss([0], count_class_zero=True) > 0
    assert loss([0], count_class_zero=False) == 0
    assert loss([0, 2], count_class_zero=True) != loss([0, 2], count_class_zero=False)


def test_bfloat16_predictions_give_a_float32_loss():
    leaf = leaves(dtype=torch.bfloat16)
    losses = make(sampled=True)(predictions(leaf), ground_truth(*LABELS))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    sum(losses.values()).backward()
    assert leaf["features"].grad.isfinite().all() and leaf["features"].grad.abs().sum() > 0


def test_huge_logits_give_finite_gradients():
    leaf = leaves(dtype=torch.float32)
    with torch.no_grad():
        leaf["embed"] *= 1e4
    losses = make()(predictions(leaf), ground_truth(*LABELS))
    sum(losses.values()).backward()
    assert leaf["features"].grad.isfinite().all()


def test_a_decoder_that_gives_masks_only_is_named():
    outputs = {"pred_logits": torch.zeros(2, 5, 5), "pred_masks": torch.zeros(2, 5, 4, 4)}
    with pytest.raises(TypeError, match="APPLY_IBS needs mask embeddings"):
        make()(outputs, ground_truth([0], [2]))


def test_unknown_things_are_an_error_in_training_only():
    loss = IntraBatchSupervision(None)
    with pytest.raises(ValueError, match="no thing_dataset_id_to_contiguous_id"):
        make(loss)(predictions(leaves()), ground_truth(*LABELS))


@pytest.mark.parametrize("counted", [True, False])
def test_config_gives_things_of_the_training_set_and_warns_of_class_zero(caplog, counted):
    MetadataCatalog.get("ibs_test_set").set(
        thing_dataset_id_to_contiguous_id={11: 0, 13: 2}, thing_classes=["bird", "cat"]
    )
    cfg = parity_models.default_config()
    cfg.DATASETS.TRAIN = ("ibs_test_set",)
    cfg.MODEL.MASK_FORMER.IBS_COUNT_CLASS_ZERO = counted
    with caplog.at_level(logging.WARNING):
        loss = build_intra_batch_supervision(cfg, sample_points=print)
    assert loss.thing_classes == ({0, 2} if counted else {2})
    assert loss.sample_points is None
    assert ("Class 0 (bird) is a thing" in caplog.text) is not counted


def test_matching_by_cost_works_with_it():
    criterion = make(sampled=True)
    criterion.matcher = HungarianMatcher(2, 5, 5, num_points=POINTS)
    losses = criterion(predictions(leaves(dtype=torch.float32)), ground_truth(*LABELS))
    assert all(loss > 0 for loss in losses.values())


@pytest.mark.parametrize("form", [np.array, torch.tensor, tuple])
def test_partners_may_be_an_array(form):
    def losses(partners):
        loss = IntraBatchSupervision(THINGS, partners=lambda batch: partners)
        return make(loss)(predictions(leaves()), ground_truth(*LABELS))

    assert losses(form(PARTNERS)) == losses(PARTNERS)
