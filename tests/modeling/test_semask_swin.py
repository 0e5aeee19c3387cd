"""The SeMask-Swin backbone: recorded maps, any size, freezing, checkpointing, precision."""

import parity_cases
import parity_models
import pytest
import torch

from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from mask2former.modeling.backbone.semask_swin import (
    D2SeMaskSwinTransformer,
    SeMaskSwinTransformer,
)
from mask2former.modeling.backbone.semask_swin_blocks import SemanticAttention, SemanticLayer
from mask2former.modeling.backbone.swin import SwinTransformer
from mask2former.modeling.errors import BackboneError

SWIN = dict(embed_dim=8, depths=(2, 2, 1, 1), num_heads=(1, 2, 2, 4), window_size=4)
CASE = "semask_panoptic"


def tiny(**options) -> SeMaskSwinTransformer:
    torch.manual_seed(0)
    settings = {**SWIN, "drop_path_rate": 0.0, "num_classes": 5, "sem_window_size": 4, **options}
    model = SeMaskSwinTransformer(**settings)
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):  # 0 would hide what is attended to
            torch.nn.init.constant_(parameter, 0.5)
    return model


def test_features_and_class_maps_equal_the_recorded_ones():
    model = parity_models.model(CASE)
    with torch.no_grad():
        features, maps = model.backbone(parity_models.normalised_images(CASE, model))
    recorded = parity_cases.arrays(CASE, "outputs")
    for name in ("res2", "res3", "res4", "res5"):
        for actual, kind in ((features[name], "backbone"), (maps[name], "semantic_map")):
            expected = torch.from_numpy(recorded[f"{kind}_{name}"])
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("num_sem_blocks", [1, 2])
@pytest.mark.parametrize("height, width", [(32, 32), (33, 61), (5, 70)])
def test_any_image_size_works(height, width, num_sem_blocks):
    features, maps = tiny(num_sem_blocks=num_sem_blocks)(torch.randn(1, 3, height, width))
    size = -(-height // 4), -(-width // 4)
    for i, name in enumerate(["res2", "res3", "res4", "res5"]):
        assert features[name].shape == (1, 8 * 2**i, *size)
        assert maps[name].shape == (1, 5, *size)
        size = -(-size[0] // 2), -(-size[1] // 2)


@pytest.mark.parametrize(("num_classes", "is_global"), [(150, True), (149, False)])
def test_with_150_classes_the_last_stage_attends_over_the_whole_map(num_classes, is_global):
    model = tiny(num_classes=num_classes, sem_window_size=2).eval()
    stage = model.layers[3].semantic_layer
    x = torch.randn(1, 4, 4, 64, requires_grad=True)
    stage(x)[0][0, 0, 0].sum().backward()
    seen = x.grad[0].abs().sum(-1) > 0
    assert bool(seen.all()) == is_global
    assert seen[:2, :2].all()
    assert model.layers[2].semantic_layer.window_size == 2


def test_attention_is_a_softmax_over_products_of_class_scores():
    torch.manual_seed(0)
    block = SemanticAttention(6, 3, drop=0.0)
    torch.nn.init.constant_(block.gamma, 0.7)
    x = torch.randn(2, 4, 6)
    query, key = block.mlp_cls_q(x), block.mlp_cls_k(x)
    weights = (query @ key.mT).softmax(-1)
    expected = x + 0.7 * block.mlp_res(weights @ block.mlp_v(x))
    actual, scores = block(x)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(scores, query)


def test_training_starts_from_the_normed_pretrained_features():
    layer = SemanticLayer(6, 3, window_size=2)
    x = torch.randn(1, 3, 5, 6)
    torch.testing.assert_close(layer(x)[0], layer.norm1(x))


def test_class_scores_of_large_size_survive_float16():
    block = SemanticAttention(4, 150, drop=0.0)
    torch.nn.init.constant_(block.gamma, 1.0)
    torch.nn.init.constant_(block.mlp_cls_q.bias, 40.0)
    torch.nn.init.constant_(block.mlp_cls_k.bias, 40.0)  # products of 240000
    assert block.half()(torch.randn(1, 4, 4).half())[0].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpointing_changes_no_gradient(dtype):
    images = torch.randn(2, 3, 40, 56)
    gradients = []
    for use_checkpoint in (False, True):
        model = tiny(use_checkpoint=use_checkpoint, drop_path_rate=0.3).train()
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            features, maps = model(images)
        outputs = [*features.values(), *maps.values()]
        sum(output.float().square().mean() for output in outputs).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert all(gradient is not None for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert gradient.isfinite().all()
        torch.testing.assert_close(gradients[1][name], gradient)


def test_frozen_stages_neither_learn_nor_drop():
    model = tiny(frozen_stages=2, drop_path_rate=0.5).train()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {name.split(".semantic_layer")[0].split(".blocks")[0] for name in frozen} >= {"layers.0"}
    assert all(name.startswith(("patch_embed.", "layers.0.")) for name in frozen)
    assert any("layers.0.semantic_layer" in name for name in frozen)
    assert not model.layers[0].semantic_layer.training
    assert model.layers[1].semantic_layer.training


def test_weights_of_a_swin_transformer_fit_and_only_semantic_layers_are_missing():
    options = {**SWIN, "drop_path_rate": 0.0}
    result = tiny().load_state_dict(SwinTransformer(**options).state_dict(), strict=False)
    assert not result.unexpected_keys
    assert result.missing_keys
    assert all(".semantic_layer." in name for name in result.missing_keys)


def test_without_semantic_blocks_the_error_names_the_key():
    with pytest.raises(BackboneError, match=r"MODEL.SWIN.NUM_SEM_BLOCKS is 0.*D2SwinTransformer"):
        tiny(num_sem_blocks=0)


def test_windows_without_tokens_are_refused_by_key():
    with pytest.raises(BackboneError, match=r"MODEL.SWIN.SEM_WINDOW_SIZE is 0"):
        tiny(sem_window_size=0)


def test_config_reaches_the_backbone():
    cfg = parity_models.default_config()
    cfg.MODEL.BACKBONE.NAME = "D2SeMaskSwinTransformer"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 6
    cfg.MODEL.SWIN.EMBED_DIM, cfg.MODEL.SWIN.NUM_HEADS = 12, [1, 1, 1, 1]
    cfg.MODEL.SWIN.SEM_WINDOW_SIZE, cfg.MODEL.SWIN.NUM_SEM_BLOCKS = 5, 2
    backbone = build_backbone(cfg, ShapeSpec(channels=3))
    assert isinstance(backbone, D2SeMaskSwinTransformer)
    layer = backbone.layers[1].semantic_layer
    assert (layer.window_size, len(layer.class_injection)) == (5, 2)
    assert layer.class_injection[0].mlp_cls_q.weight.shape == (6, 24)
    assert backbone.output_shape()["res5"] == ShapeSpec(channels=96, stride=32)
    assert backbone.size_divisibility == 32


def test_dropout_of_the_attended_features_acts_in_training_only():
    layer = tiny().layers[0].semantic_layer
    x = torch.randn(1, 4, 4, 8)
    assert not torch.equal(layer.train()(x)[0], layer(x)[0])
    assert torch.equal(layer.eval()(x)[0], layer(x)[0])
