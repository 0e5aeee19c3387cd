"""The ViT-Adapter converter: published names to ours, averages, BEiT's tables, wrong input."""

import gzip
import json
import pickle
import runpy
from pathlib import Path

import numpy as np
import parity_models
import pytest
import torch

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model
from mask2former.conversion.vit_adapter import from_beit, from_vit_adapter_mmdet, resample_table
from mask2former.engine.errors import WeightsError

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "tests/fixtures/vit_adapter/published_entries.json.gz"
CONFIG = (
    ROOT / "configs/coco/panoptic-segmentation/vit_adapter"
    "/maskformer2_beitv2_adapter_large_bs16_3x.yaml"
)


def run(*arguments) -> int:
    main = runpy.run_path(str(ROOT / "tools/convert-vit-adapter-mmdet-to-d2.py"))["main"]
    return main([str(argument) for argument in arguments])


def config(*options):
    cfg = parity_models.default_config()
    cfg.merge_from_file(str(CONFIG))
    cfg.merge_from_list(list(options))
    return cfg


@pytest.fixture(scope="module")
def published() -> dict:
    return json.loads(gzip.decompress(PUBLISHED.read_bytes()))


@pytest.fixture(scope="module")
def large():
    """The published model at full size, without storage."""
    with torch.device("meta"):
        return build_model(config("MODEL.DEVICE", "meta"))


SMALL = ["MODEL.VIT_ADAPTER.EMBED_DIM", 32, "MODEL.VIT_ADAPTER.DEPTH", 4]
SMALL += ["MODEL.VIT_ADAPTER.NUM_HEADS", 2, "MODEL.VIT_ADAPTER.DEFORM_NUM_HEADS", 2]
SMALL += [
    "MODEL.VIT_ADAPTER.WINDOW_SIZE",
    [4, 4, 4, 8],
    "MODEL.VIT_ADAPTER.INTERACTION_INDEXES",
    [],
]
SMALL += ["MODEL.VIT_ADAPTER.CONV_INPLANE", 8, "MODEL.DEVICE", "cpu"]


def as_mmdet(state: dict) -> dict:
    """Our names as mmdetection 2's, by the table of the published structure."""
    from mask2former.conversion.mmdet_keys import _VERSIONS

    head = {k: v for k, v in state.items() if not k.startswith(("backbone.", "criterion."))}
    theirs = _VERSIONS[2].to_theirs(head)
    assert not theirs.left_over
    backbone = {k: v for k, v in state.items() if k.startswith("backbone.")}
    return {**backbone, **theirs.weights}


def random_model():
    torch.manual_seed(0)
    model = build_model(config(*SMALL))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def test_the_config_has_the_published_number_of_parameters(large, published):
    assert sum(p.numel() for p in large.parameters()) == published["num_params"]


def test_the_backbone_has_the_published_names_shapes_and_order(large, published):
    theirs = [entry[:2] for entry in published["entries"] if entry[0].startswith("backbone.")]
    ours = [[f"backbone.{k}", list(v.shape)] for k, v in large.backbone.state_dict().items()]
    assert ours == theirs


def test_every_published_weight_finds_its_place_with_its_shape(large, published):
    weights = {name: torch.empty(shape, device="meta") for name, shape, *_ in published["entries"]}
    converted, report = from_vit_adapter_mmdet(weights)
    assert report.left_over == []
    state = large.state_dict()
    ours = {name: tuple(value.shape) for name, value in state.items()}
    del ours["criterion.empty_weight"]  # has no counterpart there
    assert {name: tuple(value.shape) for name, value in converted.items()} == ours


def test_a_converted_checkpoint_predicts_the_same(tmp_path):
    original = random_model()
    checkpoint = {"meta": {"epoch": 36}, "state_dict": as_mmdet(original.state_dict())}
    torch.save(checkpoint, tmp_path / "in.pth")
    assert run(tmp_path / "in.pth", tmp_path / "out.pkl") == 0
    loaded = build_model(config(*SMALL)).eval()
    DetectionCheckpointer(loaded).load(str(tmp_path / "out.pkl"))
    images = [{"image": torch.rand(3, 64, 96) * 255}]
    with torch.no_grad():
        expected, found = original(images)[0], loaded(images)[0]
    assert torch.equal(expected["sem_seg"], found["sem_seg"])
    assert torch.equal(expected["panoptic_seg"][0], found["panoptic_seg"][0])


def test_averages_are_taken_from_where_they_are():
    weights = as_mmdet(random_model().state_dict())
    averages = {
        "ema_" + k.replace(".", "_"): v + 1 for k, v in weights.items() if v.is_floating_point()
    }
    name = "backbone.blocks.0.mlp.fc1.weight"
    regular, report = from_vit_adapter_mmdet({**weights, **averages})
    assert torch.equal(regular[name], weights[name])
    assert report.averaged == len(averages) and not report.left_over
    buffers, _ = from_vit_adapter_mmdet({**weights, **averages}, use_ema_buffers=True)
    assert torch.equal(buffers[name], weights[name] + 1)
    head = "sem_seg_head.predictor.class_embed.weight"
    assert torch.equal(buffers[head], regular[head] + 1)


def test_missing_averages_are_refused(tmp_path, capsys):
    torch.save(as_mmdet(random_model().state_dict()), tmp_path / "in.pth")
    assert run(tmp_path / "in.pth", tmp_path / "out.pkl", "--ema", "buffers") == 2
    assert "no ema_* buffers" in capsys.readouterr().err


def beit(depth=4, window=14, heads=2, dim=8) -> dict:
    torch.manual_seed(0)
    state = {"cls_token": torch.zeros(1, 1, dim), "head.weight": torch.zeros(5, dim)}
    state |= {"patch_embed.proj.weight": torch.randn(dim, 3, 16, 16)}
    state |= {"norm.weight": torch.ones(dim)}
    for i in range(depth):
        state[f"blocks.{i}.attn.qkv.weight"] = torch.randn(3 * dim, dim)
        state[f"blocks.{i}.attn.relative_position_index"] = torch.zeros(197, 197, dtype=torch.long)
        table = torch.randn((2 * window - 1) ** 2 + 3, heads)
        state[f"blocks.{i}.attn.relative_position_bias_table"] = table
    return state


def test_beit_loses_its_class_token_and_fits_its_tables_to_the_windows():
    state = beit()
    converted, report = from_beit(state, [14, 14, 14, 56])
    tables = [converted[f"backbone.blocks.{i}.attn.relative_position_bias_table"] for i in range(4)]
    source = state["blocks.0.attn.relative_position_bias_table"]
    assert torch.equal(tables[0], source[:-3])
    assert tables[3].shape == (111 * 111, 2)
    assert report.resampled == ["blocks.3.attn.relative_position_bias_table"]
    assert not [name for name in converted if "cls_token" in name or "head" in name]
    assert not report.left_over


def test_a_shared_table_is_given_to_every_block():
    state = {k: v for k, v in beit().items() if "relative_position" not in k}
    state["rel_pos_bias.relative_position_bias_table"] = torch.randn(27 * 27 + 3, 2)
    converted, _ = from_beit(state, [14] * 4)
    tables = [v for k, v in converted.items() if k.endswith("bias_table")]
    assert len(tables) == 4 and all(torch.equal(table, tables[0]) for table in tables)


def test_resampling_keeps_the_centre_and_what_is_smooth():
    side = 27
    x = torch.arange(side, dtype=torch.float64) - side // 2
    bell = torch.exp(-((x[:, None] ** 2 + x[None] ** 2) / 50)).flatten()[:, None]
    wide = resample_table(bell, 111).view(111, 111)
    assert wide[55, 55].item() == pytest.approx(1.0, abs=1e-6)
    # Next to the centre distances are kept, far away they are stretched: no value leaves the range.
    assert wide[55, 56].item() == pytest.approx(float(np.exp(-1 / 50)), abs=2e-2)
    assert wide[0, 55].item() == pytest.approx(float(np.exp(-(13**2) / 50)), abs=1e-3)
    torch.testing.assert_close(wide, wide.flip(0).flip(1))


def test_a_beit_file_becomes_a_backbone(tmp_path):
    config_file = tmp_path / "small.yaml"
    config_file.write_text(
        f"_BASE_: {CONFIG}\nMODEL:\n  VIT_ADAPTER:\n    DEPTH: 4\n    WINDOW_SIZE: [14]\n"
    )
    torch.save({"module": beit()}, tmp_path / "beit.pth")
    args = (tmp_path / "beit.pth", tmp_path / "out.pkl", "--config-file", config_file)
    assert run(*args) == 0
    written = pickle.loads((tmp_path / "out.pkl").read_bytes())["model"]
    assert "backbone.patch_embed.proj.weight" in written


@pytest.mark.parametrize("weights", [{"conv.weight": torch.zeros(1)}, beit(depth=2)])
def test_other_networks_are_refused_in_one_line(weights, tmp_path, capsys):
    torch.save(weights, tmp_path / "in.pth")
    assert run(tmp_path / "in.pth", tmp_path / "out.pkl") == 2
    error = capsys.readouterr().err
    assert "MODEL.VIT_ADAPTER.DEPTH" in error and error.count("\n") == 1


def test_a_plain_beit_is_no_detector():
    with pytest.raises(WeightsError, match=r"neither backbone.spm"):
        from_vit_adapter_mmdet(beit())
