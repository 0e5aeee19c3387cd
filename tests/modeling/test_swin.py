"""The Swin backbone: recorded features, any size, freezing, checkpointing, precision."""

import parity_cases
import parity_models
import pytest
import torch

from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from mask2former.modeling.backbone.swin import D2SwinTransformer, SwinTransformer
from mask2former.modeling.errors import BackboneError

TINY = dict(embed_dim=8, depths=(2, 2, 2, 1), num_heads=(1, 2, 2, 4), window_size=4)


def tiny(**options) -> SwinTransformer:
    torch.manual_seed(0)
    return SwinTransformer(**{**TINY, "drop_path_rate": 0.0, **options})


def test_features_equal_the_recorded_ones():
    model = parity_models.model("swin_panoptic")
    with torch.no_grad():
        features = model.backbone(parity_models.normalised_images("swin_panoptic", model))
    recorded = parity_cases.arrays("swin_panoptic", "outputs")
    for name in ("res2", "res3", "res4", "res5"):
        expected = torch.from_numpy(recorded[f"backbone_{name}"])
        torch.testing.assert_close(features[name], expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("height, width", [(32, 32), (33, 61), (5, 70)])
def test_any_image_size_works(height, width):
    features = tiny()(torch.randn(1, 3, height, width))
    size = -(-height // 4), -(-width // 4)
    for i, name in enumerate(["res2", "res3", "res4", "res5"]):
        assert features[name].shape == (1, 8 * 2**i, *size)
        size = -(-size[0] // 2), -(-size[1] // 2)


def test_images_of_a_batch_do_not_see_each_other():
    model, images = tiny().eval(), torch.randn(3, 3, 40, 56)
    together = model(images)
    for i in range(3):
        alone = model(images[i : i + 1])
        for name, feature in alone.items():
            torch.testing.assert_close(together[name][i : i + 1], feature, rtol=1e-4, atol=1e-5)


def test_checkpointing_changes_no_gradient():
    images = torch.randn(2, 3, 40, 56)
    gradients = []
    for use_checkpoint in (False, True):
        model = tiny(use_checkpoint=use_checkpoint)
        sum(feature.square().mean() for feature in model(images).values()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_frozen_stages_neither_learn_nor_drop():
    model = tiny(frozen_stages=2, ape=True, drop_path_rate=0.5).train()
    assert not any(p.requires_grad for p in model.patch_embed.parameters())
    assert not model.absolute_pos_embed.requires_grad
    assert not any(p.requires_grad for p in model.layers[0].parameters())
    assert not model.layers[0].training and not model.pos_drop.training
    assert all(p.requires_grad for p in model.layers[1].parameters())
    assert model.layers[1].training and model.training


def test_position_embedding_is_added_as_it_is_at_its_own_size():
    with_ape, without = tiny(ape=True, pretrain_img_size=32).eval(), tiny().eval()
    without.load_state_dict(
        {k: v for k, v in with_ape.state_dict().items() if k != "absolute_pos_embed"}
    )
    assert with_ape.absolute_pos_embed.shape == (1, 8, 8, 8)
    images = torch.randn(1, 3, 32, 32)
    tokens = without.patch_embed(images) + with_ape.absolute_pos_embed.permute(0, 2, 3, 1)
    expected = without.norm0(without.layers[0](tokens)[0]).permute(0, 3, 1, 2)
    torch.testing.assert_close(with_ape(images)["res2"], expected, rtol=1e-4, atol=1e-5)


def test_position_embedding_fits_other_sizes():
    features = tiny(ape=True, pretrain_img_size=32)(torch.randn(1, 3, 64, 48))
    assert features["res2"].shape == (1, 8, 16, 12)


def test_stages_after_the_last_requested_one_are_not_built():
    model = D2SwinTransformer(out_features=["res2", "res4"], **TINY)
    features = model(torch.randn(1, 3, 32, 32))
    assert list(features) == ["res2", "res4"]
    assert len(model.layers) == 3 and not hasattr(model, "norm1")
    assert model.output_shape() == {
        "res2": ShapeSpec(channels=8, stride=4),
        "res4": ShapeSpec(channels=32, stride=16),
    }


def test_every_built_parameter_receives_a_gradient():
    model = D2SwinTransformer(out_features=["res3"], drop_path_rate=0.0, **TINY)
    model(torch.randn(1, 3, 32, 32))["res3"].sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_unknown_feature_is_named():
    with pytest.raises(BackboneError, match=r"OUT_FEATURES \['res7'\]"):
        D2SwinTransformer(out_features=["res7"], **TINY)


def test_stage_lists_must_agree():
    with pytest.raises(BackboneError, match="NUM_HEADS"):
        SwinTransformer(depths=(2, 2), num_heads=(1,))


@pytest.mark.parametrize(
    "options, said",
    [
        ({"window_size": 0}, "MODEL.SWIN.WINDOW_SIZE is 0"),
        ({"num_heads": (3, 1, 1, 1)}, "MODEL.SWIN.NUM_HEADS"),
        ({"frozen_stages": 6}, "MODEL.SWIN.FROZEN_STAGES is 6"),
        ({"frozen_stages": -2}, "MODEL.SWIN.FROZEN_STAGES is -2"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_key(options, said):
    with pytest.raises(BackboneError, match=said):
        SwinTransformer(**{**TINY, **options})


def test_only_batches_of_images_are_taken():
    model = D2SwinTransformer(out_features=["res2"], **TINY)
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        model(torch.randn(3, 32, 32))


def test_config_selects_it_and_names_its_shapes():
    backbone = build_backbone(parity_models.config("swin_panoptic"))
    assert isinstance(backbone, D2SwinTransformer)
    assert backbone.size_divisibility == 32
    shapes = backbone.output_shape()
    assert [(k, v.channels, v.stride) for k, v in shapes.items()] == [
        ("res2", 12, 4),
        ("res3", 24, 8),
        ("res4", 48, 16),
        ("res5", 96, 32),
    ]


def test_bfloat16_autocast_stays_near_float32():
    model, images = tiny().eval(), torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        expected = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            features = model(images)
    for name, feature in features.items():
        error = (feature.float() - expected[name]).norm() / expected[name].norm()
        assert error < 0.03, name


def test_compiles_without_a_graph_break():
    model, images = tiny().eval(), torch.randn(1, 3, 40, 56)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for name, feature in compiled(images).items():
            torch.testing.assert_close(feature, model(images)[name])
