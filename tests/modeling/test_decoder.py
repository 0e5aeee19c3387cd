"""The two transformer decoders, built without a config."""

import pytest
import torch
import torch.nn.functional as F

from mask2former.modeling.transformer_decoder.mask2former_transformer_decoder import (
    MultiScaleMaskedTransformerDecoder,
)
from mask2former.modeling.transformer_decoder.maskformer_transformer_decoder import (
    StandardTransformerDecoder,
)

BATCH, QUERIES, CLASSES, HIDDEN, MASK_DIM = 2, 6, 4, 16, 8


def masked_decoder(**options) -> MultiScaleMaskedTransformerDecoder:
    torch.manual_seed(0)
    settings = {
        "in_channels": HIDDEN,
        "num_classes": CLASSES,
        "hidden_dim": HIDDEN,
        "num_queries": QUERIES,
        "nheads": 4,
        "dim_feedforward": 24,
        "dec_layers": 4,
        "pre_norm": False,
        "mask_dim": MASK_DIM,
        "enforce_input_project": False,
    }
    return MultiScaleMaskedTransformerDecoder(**(settings | options)).eval()


def features(channels: int = HIDDEN) -> tuple[list[torch.Tensor], torch.Tensor]:
    torch.manual_seed(1)
    levels = [torch.randn(BATCH, channels, 3 * s, 2 * s) for s in (1, 2, 4)]
    return levels, torch.randn(BATCH, MASK_DIM, 24, 16)


def test_there_is_one_prediction_more_than_layers():
    outputs = masked_decoder()(*features())
    assert outputs["pred_logits"].shape == (BATCH, QUERIES, CLASSES + 1)
    assert outputs["pred_masks"].shape == (BATCH, QUERIES, 24, 16)
    assert len(outputs["aux_outputs"]) == 4
    for layer in outputs["aux_outputs"]:
        assert layer["pred_logits"].shape == outputs["pred_logits"].shape
        assert layer["pred_masks"].shape == outputs["pred_masks"].shape


def test_masks_are_not_made_unless_they_are_looked_at():
    outputs = masked_decoder()(*features())
    for layer in [outputs, *outputs["aux_outputs"]]:
        assert "pred_masks" not in dict(layer)


@pytest.mark.parametrize("size", [(24, 16), (23, 16), (27, 35)])
def test_attention_is_blocked_where_the_resized_mask_is_background(size):
    decoder, (levels, _) = masked_decoder(), features()
    mask_features = torch.randn(BATCH, MASK_DIM, *size)
    embed = torch.randn(BATCH, QUERIES, MASK_DIM)
    at_level = decoder._level_mask_features(levels, mask_features)
    masks = torch.einsum("bqc,bchw->bqhw", embed, mask_features)
    for level, small in zip(levels, at_level):
        resized = F.interpolate(masks, size=level.shape[-2:], mode="bilinear")
        expected = resized.flatten(2).sigmoid() >= 0.5
        expected[~expected.any(-1)] = True
        assert torch.equal(decoder._attention_mask(embed, small), expected[:, None])


def test_a_query_with_an_empty_mask_attends_everywhere():
    embed = torch.tensor([[[-1.0], [1.0]]])
    mask_features = torch.tensor([[[2.0, 0.5, 1.0]]])
    attend = masked_decoder()._attention_mask(embed, mask_features)
    assert attend.tolist() == [[[[True] * 3, [True] * 3]]]
    mask_features[..., 0] = -1
    attend = masked_decoder()._attention_mask(embed, mask_features)
    assert attend.tolist() == [[[[True, False, False], [False, True, True]]]]


def test_attention_masks_pass_no_gradient_to_the_mask_features():
    outputs = masked_decoder()(features()[0], features()[1].requires_grad_())
    outputs["pred_logits"].sum().backward()  # would come through attention masks alone
    assert outputs.mask_features.grad is None


def test_feature_maps_are_projected_where_channels_differ_or_on_demand():
    assert not list(masked_decoder().input_proj.parameters())
    assert masked_decoder(enforce_input_project=True).input_proj[2].weight.shape[:2] == (16, 16)
    decoder = masked_decoder(in_channels=5)
    assert decoder(*features(5))["pred_logits"].shape == (BATCH, QUERIES, CLASSES + 1)


def test_without_layers_the_raw_queries_predict():
    outputs = masked_decoder(dec_layers=0)(*features())
    assert outputs["aux_outputs"] == []
    torch.testing.assert_close(outputs["pred_logits"][0], outputs["pred_logits"][1])


def test_old_checkpoints_call_the_queries_static():
    decoder = masked_decoder()
    state = {k.replace("query_feat", "static_query"): v for k, v in decoder.state_dict().items()}
    state["static_query.weight"] = torch.ones(QUERIES, HIDDEN)
    decoder.load_state_dict(state)
    assert (decoder.query_feat.weight == 1).all()


def test_per_pixel_use_is_refused():
    with pytest.raises(ValueError, match="StandardTransformerDecoder"):
        masked_decoder(mask_classification=False)


def test_three_feature_maps_are_needed():
    levels, mask_features = features()
    with pytest.raises(ValueError, match="3 feature maps, got 2"):
        masked_decoder()(levels[:2], mask_features)


def test_bfloat16_autocast_stays_close_to_float32():
    decoder, inputs = masked_decoder(dec_layers=1), features()
    with torch.no_grad():
        expected = decoder(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = decoder(*inputs)
            assert outputs["pred_masks"].dtype == torch.bfloat16
    scale = expected["pred_logits"].abs().max()
    assert (outputs["pred_logits"] - expected["pred_logits"]).abs().max() < 0.1 * scale


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_compiles_as_one_graph(training):
    torch._dynamo.reset()
    decoder, (levels, mask_features) = masked_decoder(), features()
    decoder.train(training)
    compiled = torch.compile(decoder, fullgraph=True, backend="aot_eager")
    expected, outputs = decoder(levels, mask_features), compiled(levels, mask_features)
    torch.testing.assert_close(outputs["pred_logits"], expected["pred_logits"])
    torch.testing.assert_close(outputs["pred_masks"], expected["pred_masks"])
    for layer, expected_layer in zip(outputs["aux_outputs"], expected["aux_outputs"]):
        torch.testing.assert_close(layer["pred_masks"], expected_layer["pred_masks"])


def standard_decoder(**options) -> StandardTransformerDecoder:
    torch.manual_seed(0)
    settings = {
        "in_channels": 10,
        "num_classes": CLASSES,
        "hidden_dim": HIDDEN,
        "num_queries": QUERIES,
        "nheads": 4,
        "dropout": 0.0,
        "dim_feedforward": 24,
        "enc_layers": 0,
        "dec_layers": 3,
        "pre_norm": False,
        "deep_supervision": True,
        "mask_dim": MASK_DIM,
        "enforce_input_project": False,
    }
    return StandardTransformerDecoder(**(settings | options)).eval()


def test_standard_decoder_gives_one_prediction_a_layer():
    outputs = standard_decoder()(torch.randn(BATCH, 10, 3, 2), features()[1])
    assert outputs["pred_logits"].shape == (BATCH, QUERIES, CLASSES + 1)
    assert outputs["pred_masks"].shape == (BATCH, QUERIES, 24, 16)
    assert len(outputs["aux_outputs"]) == 2


def test_standard_decoder_without_deep_supervision_gives_the_last_only():
    x, mask_features = torch.randn(BATCH, 10, 3, 2), features()[1]
    outputs = standard_decoder(deep_supervision=False)(x, mask_features)
    assert "aux_outputs" not in outputs
    expected = standard_decoder()(x, mask_features)
    torch.testing.assert_close(outputs["pred_masks"], expected["pred_masks"])


def test_standard_decoder_for_per_pixel_heads_has_no_classes():
    decoder = standard_decoder(mask_classification=False)
    outputs = decoder(torch.randn(BATCH, 10, 3, 2), features()[1])
    assert "pred_logits" not in outputs
    assert outputs["pred_masks"].shape == (BATCH, QUERIES, 24, 16)
    assert not hasattr(decoder, "class_embed")
