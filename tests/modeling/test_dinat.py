"""DiNAT: recorded features, published names and sizes, padding, freezing, wrong configurations."""

import gzip
import json
import runpy
from pathlib import Path

import parity_cases
import parity_models
import pytest
import torch
from parity_cases import arrays

from detectron2.modeling import build_backbone, build_model
from mask2former.modeling.backbone.dinat import D2DiNAT, DiNAT, NeighborhoodAttention2D
from mask2former.ops import use_implementation
from mask2former.utils.op_counts import count_flops

ROOT = Path(__file__).parents[2]
FACTS = json.loads(
    gzip.decompress((ROOT / "tests/fixtures/modeling/dinat_state_dicts.json.gz").read_bytes())
)
PUBLISHED = sorted(ROOT.glob("configs/*/*/dinat/*.yaml"))
TINY = dict(
    embed_dim=8,
    depths=(1, 2, 2, 1),
    num_heads=(1, 2, 2, 4),
    kernel_size=3,
    dilations=((4,), (1, 2), (1, 2), (1,)),
)


def tiny(**options) -> DiNAT:
    torch.manual_seed(0)
    return DiNAT(**{**TINY, "drop_path_rate": 0.0, **options})


@pytest.mark.parametrize("mode", ["auto", "reference"])
def test_features_equal_the_recorded_ones(mode):
    model = parity_models.model("dinat_panoptic")
    with torch.no_grad(), use_implementation(mode):
        features = model.backbone(parity_models.normalised_images("dinat_panoptic", model))
    recorded = parity_cases.arrays("dinat_panoptic", "outputs")
    for name in ("res2", "res3", "res4", "res5"):
        expected = torch.from_numpy(recorded[f"backbone_{name}"])
        torch.testing.assert_close(features[name], expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("case", range(6))
def test_the_module_computes_what_nattens_did(case):
    recorded = {
        key.removeprefix(f"{case}/"): torch.from_numpy(value)
        for key, value in arrays("neighborhood_attention", "cases").items()
        if key.startswith(f"{case}/")
    }
    module = NeighborhoodAttention2D(*recorded["dim_heads_kernel_dilation"].tolist())
    module.load_state_dict(
        {k.removeprefix("param/"): v for k, v in recorded.items() if k.startswith("param/")}
    )
    x = recorded["x"].requires_grad_()
    output = module(x)
    torch.testing.assert_close(output, recorded["output"], rtol=1e-5, atol=3e-6)
    output.backward(recorded["grad_output"])
    torch.testing.assert_close(x.grad, recorded["grad_x"], rtol=1e-4, atol=1e-5)
    for name, parameter in module.named_parameters():
        expected = recorded[f"paramgrad/{name}"]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", sorted(FACTS))
def test_names_shapes_and_order_are_the_published_ones(name):
    cfg = parity_models.default_config()
    cfg.merge_from_file(str(ROOT / "configs" / FACTS[name]["config"]))
    cfg.merge_from_list(FACTS[name]["overrides"])
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    parameters = {key for key, _ in model.named_parameters()}
    entries = [
        [key, list(x.shape), str(x.dtype).removeprefix("torch."), "pb"[key not in parameters]]
        for key, x in model.state_dict().items()
    ]
    assert entries == FACTS[name]["entries"]
    assert sum(p.numel() for p in model.parameters()) == FACTS[name]["num_params"]


def test_there_are_eight_published_configs():
    assert len(PUBLISHED) == 8


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda f: "-".join(f.parts[-4:-2]))
def test_published_configs_build_at_full_size(file):
    """Published: 220 M parameters."""
    cfg = parity_models.default_config()
    cfg.merge_from_file(str(file))
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        model = build_model(cfg)
    assert 219.8e6 < sum(p.numel() for p in model.parameters()) < 220e6


def test_neighbourhood_attention_is_counted():
    """Per pixel and channel K * K multiply-adds for the logits and as many for the sum."""
    with torch.device("meta"):
        module = NeighborhoodAttention2D(8, 2, 3, 2)
        counts = count_flops(module, torch.empty(1, 9, 7, 8))
    assert counts.by_operator["neighborhood_attention"] == 2 * 9 * 9 * 7 * 8
    assert counts.total == (2 * 9 + 4 * 8) * 9 * 7 * 8


def test_images_of_a_batch_do_not_see_each_other():
    model, images = tiny().eval(), torch.randn(3, 3, 40, 56)
    together = model(images)
    for i in range(3):
        for name, feature in model(images[i : i + 1]).items():
            torch.testing.assert_close(together[name][i : i + 1], feature, rtol=1e-4, atol=1e-5)


def test_a_map_smaller_than_the_window_is_padded_after_the_norm():
    module = NeighborhoodAttention2D(8, 2, 3, 2)
    torch.nn.init.normal_(module.qkv.bias)  # so that padding counts
    x = torch.randn(1, 4, 5, 8)
    padded = torch.zeros(1, 6, 6, 8)
    padded[:, :4, :5] = x
    torch.testing.assert_close(module(x), module(padded)[:, :4, :5])


def test_scale_of_the_logits_can_be_given():
    x, plain = torch.randn(1, 6, 6, 8), NeighborhoodAttention2D(8, 2, 3)
    scaled = NeighborhoodAttention2D(8, 2, 3, qk_scale=0.25)
    scaled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        plain.qkv.weight[:8] *= 0.25 / 0.5  # sqrt(1 / 4) is the usual scale
        plain.qkv.bias[:8] *= 0.25 / 0.5
    torch.testing.assert_close(scaled(x), plain(x))


def test_without_a_bias_there_is_no_table():
    module = NeighborhoodAttention2D(8, 2, 3, bias=False)
    assert "rpb" not in module.state_dict()
    assert module(torch.randn(1, 6, 6, 8)).shape == (1, 6, 6, 8)


def test_attention_dropout_acts_in_training_only():
    model, images = tiny(attn_drop_rate=0.5), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(model(images)["res5"], model(images)["res5"])
        model.eval()
        assert torch.equal(model(images)["res5"], model(images)["res5"])


def test_layer_scale_is_a_learned_factor_on_both_branches():
    model, images = tiny(layer_scale=0.0).eval(), torch.randn(1, 3, 32, 32)
    tokens = model.patch_embed(images)
    torch.testing.assert_close(model.levels[0].blocks[0](tokens), tokens)
    names = [name for name, _ in model.levels[0].blocks[0].named_parameters()]
    assert names[:2] == ["gamma1", "gamma2"]


def test_stages_after_the_last_requested_one_are_not_built():
    model = D2DiNAT(out_features=["res2", "res4"], **TINY)
    assert list(model(torch.randn(1, 3, 32, 32))) == ["res2", "res4"]
    assert len(model.levels) == 3 and not hasattr(model, "norm1")
    shapes = model.output_shape()
    assert [(k, v.channels, v.stride) for k, v in shapes.items()] == [
        ("res2", 8, 4),
        ("res4", 32, 16),
    ]


def test_every_built_parameter_receives_a_gradient():
    model = D2DiNAT(out_features=["res3"], drop_path_rate=0.0, layer_scale=1e-2, **TINY)
    model(torch.randn(1, 3, 32, 32))["res3"].sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_freezing_stops_learning_and_drop_path():
    model = tiny(freeze_at=2, drop_path_rate=0.5).train()
    assert not any(p.requires_grad for p in model.patch_embed.parameters())
    assert not any(p.requires_grad for p in model.levels[0].parameters())
    assert not model.levels[0].training and model.levels[1].training
    assert all(p.requires_grad for p in model.levels[1].parameters())


WRONG = {
    "no dilations": ({"dilations": None}, r"DILATIONS is not set.*lists of 1, 2, 2, 1 numbers"),
    "too few": ({"dilations": ((1,),)}, r"DILATIONS has \[1\] dilations per stage.*\[1, 2, 2, 1\]"),
    "zero": ({"dilations": ((0,), (1, 2), (1, 2), (1,))}, r"DILATIONS .* at least 1, got 0"),
    "even kernel": ({"kernel_size": 4}, r"KERNEL_SIZE .* must be odd and positive, got 4"),
    "heads": ({"num_heads": (1, 2)}, r"DEPTHS \[1, 2, 2, 1\] and MODEL\.DINAT\.NUM_HEADS \[1, 2\]"),
    "heads do not divide": (
        {"num_heads": (3, 2, 2, 4)},
        r"dim \(8\) must be divisible by num_heads",
    ),
    "freezing": ({"freeze_at": 7}, r"FREEZE_AT must be from 0 to 5, got 7"),
    "stage": ({"out_indices": (4,)}, r"out_indices \[4\] not within 4 stages"),
}


@pytest.mark.parametrize("options,message", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_configuration_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_an_unknown_feature_is_named():
    with pytest.raises(ValueError, match=r"MODEL\.DINAT\.OUT_FEATURES \['res7'\]"):
        D2DiNAT(out_features=["res7"], **TINY)


def test_only_batches_of_images_are_taken():
    with pytest.raises(ValueError, match=r"\(3, 32, 32\)"):
        D2DiNAT(out_features=["res2"], **TINY)(torch.randn(3, 32, 32))


def test_compiles_without_a_graph_break():
    model, images = tiny().eval(), torch.randn(1, 3, 40, 56)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for name, feature in compiled(images).items():
            torch.testing.assert_close(feature, model(images)[name])


# ------------------------------------------------------------------ pretrained weights


@pytest.mark.parametrize("levels", [(), ("model",), ("state_dict",), ("model", "state_dict")])
def test_converted_classification_weights_land_in_the_backbone(levels, tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer

    cfg = parity_models.config("dinat_panoptic")
    source, target = build_backbone(cfg), build_backbone(cfg)
    weights = {k: v for k, v in source.state_dict().items() if not k.startswith("norm")}
    data = weights | {"head.weight": torch.ones(2, 8), "norm.bias": torch.ones(96)}
    for level in reversed(levels):
        data = {level: data}
    torch.save(data, tmp_path / "in.pth")
    main = runpy.run_path(str(ROOT / "tools/convert-pretrained-dinat-model-to-d2.py"))["main"]
    assert main([str(tmp_path / "in.pth"), str(tmp_path / "out.pkl")]) == 0
    model = torch.nn.ModuleDict({"backbone": target})
    DetectionCheckpointer(model).load(str(tmp_path / "out.pkl"))
    loaded = target.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_a_file_without_weights_is_refused_in_one_line(tmp_path, capsys):
    torch.save({"model": {"epoch": 3}}, tmp_path / "in.pth")
    main = runpy.run_path(str(ROOT / "tools/convert-pretrained-dinat-model-to-d2.py"))["main"]
    assert main([str(tmp_path / "in.pth"), str(tmp_path / "out.pkl")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "no weights at the top, under 'model' or under 'state_dict' (found: epoch)" in line
