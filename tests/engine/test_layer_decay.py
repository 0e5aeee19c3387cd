"""Layer-wise learning rates: the recorded groups, other families of backbones, the optimizer."""

import parity_cases
import pytest
import torch
from parity_models import default_config
from torch import nn

from mask2former.engine import ConfigError
from mask2former.engine.layer_decay import layer_scales
from mask2former.engine.optimizer import build_optimizer, parameter_groups
from mask2former.modeling.backbone.swin import SwinTransformer
from mask2former.modeling.backbone.timm_backbone import TimmBackbone
from mask2former.modeling.backbone.vit_adapter import BEiTAdapter, TimmViTAdapter


def model_with(backbone: nn.Module) -> nn.Module:
    model = nn.Module()
    model.backbone = backbone
    model.head = nn.Linear(2, 2)
    return model


def scales(backbone: nn.Module, rate: float = 0.5) -> dict[str, float]:
    return layer_scales([name for name, _ in model_with(backbone).named_parameters()], rate)


def config(*options):
    cfg = default_config()
    cfg.merge_from_list(["SOLVER.BACKBONE_MULTIPLIER", 1.0, "SOLVER.WEIGHT_DECAY", 0.05, *options])
    return cfg


@pytest.fixture(scope="module")
def beit() -> nn.Module:
    return model_with(BEiTAdapter(**parity_cases.facts("vit_adapter_beit", "config")))


def test_rates_and_decays_equal_the_recorded_ones(beit):
    recorded = parity_cases.facts("vit_adapter_beit", "layer_decay")
    cfg = config("SOLVER.LAYER_DECAY", 0.9, "SOLVER.BASE_LR", recorded["base_lr"])
    names = {parameter: name for name, parameter in beit.named_parameters()}
    found = {names[g["params"][0]]: g for g in parameter_groups(cfg, beit)}
    assert found.keys() == recorded["params"].keys()
    for name, (scale, decay) in recorded["params"].items():
        assert found[name]["lr"] == pytest.approx(scale * recorded["base_lr"], rel=1e-12)
        assert found[name]["weight_decay"] == decay


def test_off_changes_nothing(beit):
    groups = list(parameter_groups(config("SOLVER.BASE_LR", 0.1), beit))
    assert {group["lr"] for group in groups} == {0.1}


def test_prefix_tokens_and_position_embeddings_are_the_lowest_layer():
    small = dict(embed_dim=48, depth=4, num_heads=3)
    adapter = TimmViTAdapter("vit_small_patch14_reg4_dinov2", options=small, deform_num_heads=3)
    found = scales(adapter)
    for name in ("cls_token", "reg_token", "pos_embed", "patch_embed.proj.weight"):
        assert found[f"backbone.encoder.{name}"] == 0.5**5
    assert found["backbone.encoder.blocks.0.mlp.fc1.weight"] == 0.5**4
    assert found["backbone.encoder.blocks.3.mlp.fc1.weight"] == 0.5
    assert found["backbone.spm.fc1.weight"] == found["backbone.level_embed"] == 1.0
    assert found["head.weight"] == 1.0


def test_blocks_of_swin_count_through_the_stages():
    tiny = dict(embed_dim=8, depths=(1, 1, 2, 1), num_heads=(1, 1, 1, 1), window_size=4)
    found = scales(SwinTransformer(**tiny))
    assert found["backbone.patch_embed.proj.weight"] == 0.5**6
    assert found["backbone.layers.0.blocks.0.mlp.fc1.weight"] == 0.5**5
    assert found["backbone.layers.0.downsample.reduction.weight"] == 0.5**5
    assert found["backbone.layers.2.blocks.1.mlp.fc1.weight"] == 0.5**2
    assert found["backbone.layers.3.blocks.0.mlp.fc1.weight"] == 0.5
    assert found["backbone.norm0.weight"] == 1.0


@pytest.mark.parametrize(
    "name, stem, first, last",
    [
        ("test_convnext", "stem_0.weight", "stages_0.blocks.0.gamma", "stages_3.blocks.1.gamma"),
        ("test_efficientnet", "conv_stem.weight", "blocks.0.0.conv.weight", "blocks.4.0.bn3.bias"),
        ("test_resnet", "conv1.0.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"),
    ],
)
def test_blocks_of_timm_models_count_through_the_stages(name, stem, first, last):
    found = scales(TimmBackbone(name))
    assert found[f"backbone.model.{last}"] == 0.5
    assert found[f"backbone.model.{first}"] == 2 * found[f"backbone.model.{stem}"]
    values = [v for k, v in found.items() if k.startswith("backbone.")]
    assert values == sorted(values)


def test_the_rate_multiplies_the_backbones_own(beit):
    cfg = config("SOLVER.LAYER_DECAY", 0.5, "SOLVER.BASE_LR", 1.0)
    cfg.SOLVER.BACKBONE_MULTIPLIER = 0.1
    names = {parameter: name for name, parameter in beit.named_parameters()}
    found = {names[g["params"][0]]: g["lr"] for g in parameter_groups(cfg, beit)}
    assert found["backbone.blocks.3.mlp.fc1.weight"] == pytest.approx(0.05)
    assert found["head.weight"] == 1.0


def test_names_under_a_wrapper_are_found(beit):
    wrapped = nn.Module()
    wrapped.module = beit
    cfg = config("SOLVER.LAYER_DECAY", 0.5, "SOLVER.BASE_LR", 1.0)
    rates = {group["lr"] for group in parameter_groups(cfg, wrapped)}
    assert rates == {1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125}


def test_the_optimizer_steps_by_these_rates():
    adapter = TimmViTAdapter("test_vit", deform_num_heads=2, norm="BN", drop_path_rate=0.0)
    model = model_with(adapter)
    cfg = config("SOLVER.LAYER_DECAY", 0.1, "SOLVER.BASE_LR", 0.01, "SOLVER.WEIGHT_DECAY", 0.0)
    optimizer = build_optimizer(cfg, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # Adam's first step is the rate itself
    moved = {name: (p - before[name]).abs().max().item() for name, p in model.named_parameters()}
    depth = len(adapter.encoder.blocks)
    # Biases start at 0, so that tiny steps are seen exactly.
    bias = moved["backbone.encoder.blocks.0.mlp.fc1.bias"]
    assert bias == pytest.approx(0.01 * 0.1**depth, rel=1e-3)
    assert moved["backbone.spm.fc1.weight"] == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("rate", [0.0, 1.5, -1.0])
def test_impossible_rates_are_refused(beit, rate):
    with pytest.raises(ConfigError, match=r"SOLVER.LAYER_DECAY is"):
        list(parameter_groups(config("SOLVER.LAYER_DECAY", rate), beit))


def test_a_backbone_without_blocks_is_refused():
    with pytest.raises(ConfigError, match="no numbered blocks"):
        list(parameter_groups(config("SOLVER.LAYER_DECAY", 0.9), model_with(nn.Linear(2, 2))))
