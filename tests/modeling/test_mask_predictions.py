"""Masks are made where they are looked at, and equal the masks written out."""

import torch

from mask2former.modeling.mask_predictions import (
    MaskPredictions,
    mask_logits_at,
    matched_mask_logits,
)

LAYERS, BATCH, QUERIES, CHANNELS, HEIGHT, WIDTH = 3, 2, 5, 4, 6, 7


def lazy_layers(requires_grad: bool = False) -> list[MaskPredictions]:
    torch.manual_seed(0)
    features = torch.randn(BATCH, CHANNELS, HEIGHT, WIDTH, dtype=torch.float64)
    features.requires_grad_(requires_grad)
    layers = []
    for _ in range(LAYERS):
        embed = torch.randn(BATCH, QUERIES, CHANNELS, dtype=torch.float64)
        embed.requires_grad_(requires_grad)
        layers.append(MaskPredictions(mask_embed=embed, mask_features=features))
    return layers


def dense(layers: list[MaskPredictions]) -> list[dict]:
    return [
        {"pred_masks": torch.einsum("bqc,bchw->bqhw", p.mask_embed, p.mask_features)}
        for p in layers
    ]


def test_masks_are_made_on_first_access_and_kept():
    prediction = lazy_layers()[0]
    assert list(prediction) == []
    assert "pred_masks" in prediction
    masks = prediction["pred_masks"]
    torch.testing.assert_close(masks, dense([prediction])[0]["pred_masks"])
    assert prediction.get("pred_masks") is masks


def test_other_keys_behave_as_in_a_dict():
    prediction = MaskPredictions(mask_embed=None, mask_features=None, pred_logits=1)
    assert prediction["pred_logits"] == 1
    assert "aux_outputs" not in prediction
    assert prediction.get("aux_outputs", ()) == ()


def test_logits_at_points_equal_sampled_masks():
    layers = lazy_layers()
    points = torch.rand(LAYERS, 11, 2, dtype=torch.float64)
    for image in range(BATCH):
        torch.testing.assert_close(
            mask_logits_at(layers, image, points), mask_logits_at(dense(layers), image, points)
        )


def test_matched_masks_and_their_gradients_equal_those_of_written_out_masks():
    # Matches per prediction and image; one image has none in one prediction.
    counts = [[2, 1], [0, 3], [1, 1]]
    image = torch.tensor([0, 0, 1, 1, 1, 1, 0, 1])
    query = torch.tensor([4, 1, 0, 2, 3, 0, 2, 2])
    gradients, masks = [], []
    for written_out in (False, True):
        layers = lazy_layers(requires_grad=True)
        leaves = [p.mask_embed for p in layers] + [layers[0].mask_features]
        predictions = dense(layers) if written_out else layers
        per_layer = (x.split([3, 3, 2]) for x in (image, query))
        masks.append(matched_mask_logits(predictions, *per_layer, torch.tensor(counts)))
        loss = sum((mask**3).sum() for mask in masks[-1])
        gradients.append(torch.autograd.grad(loss, leaves))
    assert [len(mask) for mask in masks[0]] == [3, 3, 2]
    torch.testing.assert_close(masks[0], masks[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_no_match_at_all_leaves_a_gradient_path():
    layers = lazy_layers(requires_grad=True)
    none = [torch.zeros(0, dtype=torch.int64)] * LAYERS
    masks = matched_mask_logits(layers, none, none, torch.zeros(LAYERS, BATCH, dtype=torch.int64))
    sum(mask.sum() for mask in masks).backward()
    assert masks[0].shape == (0, HEIGHT, WIDTH)
    assert layers[0].mask_features.grad.abs().sum() == 0
    assert all(p.mask_embed.grad.abs().sum() == 0 for p in layers)
