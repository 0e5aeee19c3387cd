"""Plain transformers of timm inside the adapter: their numbers, prefix tokens, patch sizes."""

import pytest
import timm
import torch

from mask2former.modeling.backbone.vit_adapter import TimmViTAdapter
from mask2former.modeling.errors import BackboneError

SMALL = dict(embed_dim=48, depth=4, num_heads=3)
FAMILIES = {
    "vit_small_patch16_224": SMALL,  # AugReg
    "deit3_small_patch16_224": SMALL,
    "vit_small_patch14_reg4_dinov2": SMALL,
    "vit_small_patch16_dinov3": SMALL,
    "vit_small_patch16_rope_mixed_224": SMALL,
    "eva02_tiny_patch14_224": SMALL,
}


def tiny(encoder="vit_small_patch14_reg4_dinov2", **options) -> TimmViTAdapter:
    torch.manual_seed(0)
    adapter = dict(deform_num_heads=3, conv_inplane=4, norm="BN", options=FAMILIES[encoder])
    return TimmViTAdapter(encoder, **{**adapter, **options})


@pytest.mark.parametrize("encoder", FAMILIES)
def test_with_closed_injectors_the_encoder_is_timms(encoder):
    """gamma is 0: patches pass as if the adapter were not there, prefix tokens included."""
    model = tiny(encoder, init_values=0.0).eval()
    images, seen = torch.randn(2, 3, 64, 96), []
    model.interactions[-1].extractor.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    with torch.no_grad():
        model(images)
        expected = model.encoder.forward_features(images)[:, model.encoder.num_prefix_tokens :]
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoder", FAMILIES)
def test_every_parameter_gets_a_gradient(encoder):
    model = tiny(encoder, init_values=0.1)
    features = model(torch.randn(2, 3, 40, 70))
    assert {k: tuple(v.shape[-2:]) for k, v in features.items()} == {
        "res2": (10, 18),
        "res3": (5, 9),
        "res4": (3, 5),
        "res5": (2, 3),
    }
    sum(feature.square().mean() for feature in features.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]


def test_dinov2_weights_of_patch_14_are_resampled_to_16(tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    torch.manual_seed(1)
    original = timm.create_model(name, num_classes=0, **SMALL)
    torch.nn.init.constant_(original.patch_embed.proj.weight, 0.01)
    torch.save(original.state_dict(), tmp_path / "dinov2.pth")
    model = tiny(name, pretrained_file=str(tmp_path / "dinov2.pth"))
    assert model.encoder.patch_embed.proj.weight.shape[-2:] == (16, 16)
    # The response to a constant image is preserved (that is what the resampling is for).
    constant = model.encoder.patch_embed.proj.weight.sum((1, 2, 3))
    torch.testing.assert_close(
        constant, original.patch_embed.proj.weight.sum((1, 2, 3)), rtol=1e-3, atol=1e-3
    )
    assert torch.equal(model.encoder.pos_embed, original.pos_embed)
    assert torch.equal(model.encoder.reg_token, original.reg_token)
    state = model.encoder.state_dict()
    assert torch.equal(state["blocks.3.mlp.fc2.weight"], original.blocks[3].mlp.fc2.weight)


def test_a_frozen_encoder_neither_learns_nor_drops():
    model = tiny(freeze_encoder=True, drop_path_rate=0.5, init_values=0.1).train()
    assert not any(p.requires_grad for p in model.encoder.parameters())
    assert not any(module.training for module in model.encoder.modules())
    assert model.spm.training and model.spm.stem[0].weight.requires_grad
    sum(feature.mean() for feature in model(torch.randn(2, 3, 64, 64)).values()).backward()
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained and not [name for name in trained if name.startswith("encoder.")]
    assert any(name.startswith("interactions.0.injector") for name in trained)


@pytest.mark.parametrize(
    "encoder, said",
    [
        ("convnext_tiny", "build_timm_backbone"),
        ("beitv2_base_patch16_224", "D2BEiTAdapter"),
        ("vit_small_patch16_dinov9", "Similar: vit_"),
    ],
)
def test_what_is_no_plain_transformer_is_refused_with_the_way_out(encoder, said):
    with pytest.raises(BackboneError, match=said):
        TimmViTAdapter(encoder)
