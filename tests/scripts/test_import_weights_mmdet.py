"""Checkpoints of mmdetection compute here what they did there (recorded; see the fixture)."""

import gzip
import json
import runpy
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detectron2.modeling import build_model
from mask2former.conversion.infer_config import config_from, infer_options
from mask2former.conversion.mmdet_keys import (
    from_mmdet,
    merging_to_mmdet,
    merging_to_ours,
    to_mmdet,
)
from mask2former.conversion.state import complete, empty_state
from mask2former.modeling.backbone.swin import PatchMerging

REPO = Path(__file__).parents[2]
FIXTURE = REPO / "tests/fixtures/conversion"
NAMES = json.loads(gzip.decompress((FIXTURE / "mmdet_names.json.gz").read_bytes()))


def fill(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weights of the recording, which depend on the name and the shape only."""
    if name.endswith(("num_batches_tracked", "relative_position_index")):
        return torch.zeros(shape, dtype=torch.int64)
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    values = torch.from_numpy(values.astype(np.float32))
    if name.endswith("running_var"):
        return 0.5 + values.abs()
    if len(shape) < 2:
        return 0.2 * values + float(name.endswith("weight"))
    return values / np.sqrt(np.prod(shape[1:])).astype(np.float32)


def checkpoint(kind: str) -> dict[str, torch.Tensor]:
    return {name: fill(name, tuple(shape)) for name, shape in NAMES[kind]}


@pytest.mark.parametrize("kind", ["resnet", "swin"])
def test_logits_are_those_of_mmdetection(kind, tmp_path):
    torch.save({"meta": {}, "state_dict": checkpoint(kind)}, tmp_path / "mmdet.pth")
    main = runpy.run_path(str(REPO / "tools/import_weights.py"))["main"]
    assert main([str(tmp_path / "mmdet.pth"), str(tmp_path / "ours.pth")]) == 0
    model = build_model(config_from({"MODEL.DEVICE": "cpu"}, tmp_path / "ours.yaml"))
    model.load_state_dict(torch.load(tmp_path / "ours.pth")["model"])
    model.eval()
    pixels = np.random.RandomState(0).standard_normal((1, 3, 64, 96)).astype(np.float32)
    with torch.no_grad():
        outputs = model.sem_seg_head(model.backbone(torch.from_numpy(pixels)))
    with np.load(FIXTURE / "mmdet_outputs.npz") as recorded:
        for ours, theirs in (("pred_logits", "class"), ("pred_masks", "mask")):
            expected = torch.from_numpy(recorded[f"{kind}_{theirs}"])
            torch.testing.assert_close(outputs[ours], expected, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("kind", ["resnet", "swin"])
def test_every_name_has_a_place_and_comes_back(kind):
    theirs = checkpoint(kind)
    renamed = from_mmdet(theirs)
    assert renamed.left_over == []
    cfg = config_from(infer_options(renamed.weights))
    state = complete(cfg, renamed)
    assert not (state.missing or state.mismatched or state.left_over)
    # num_batches_tracked is not in frozen norms, the index follows from the window
    again = to_mmdet(renamed.weights)
    derived = ("num_batches_tracked", "relative_position_index")
    assert {n for n in theirs if not n.endswith(derived)} <= set(again.weights)
    assert all(torch.equal(value, theirs[name]) for name, value in again.weights.items())


def test_head_of_mmdetection_2_has_the_published_counterparts():
    theirs = {name: torch.empty(shape, device="meta") for name, shape in NAMES["mmdet2_head"]}
    renamed = from_mmdet(theirs)
    assert renamed.left_over == []
    config = REPO / "configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"
    expected = {
        name: value.shape
        for name, value in empty_state(config_from({}, config)).items()
        if name.startswith("sem_seg_head.")
    }
    shapes = {name: value.shape for name, value in renamed.weights.items()}
    for name in shapes:  # the recorded head is of another backbone
        if name.endswith(("_proj.0.0.weight", "_proj.1.0.weight", "_proj.2.0.weight", "_1.weight")):
            shapes[name] = expected[name]
    assert shapes == expected


def test_patch_merging_with_unfold_gives_the_same_tokens():
    torch.manual_seed(0)
    merging = PatchMerging(3).eval()
    for parameter in merging.parameters():
        nn.init.normal_(parameter)
    x = torch.rand(1, 4, 6, 3)  # [B, H, W, C]
    unfolded = nn.functional.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
    norm = (merging_to_mmdet(merging.norm.weight), merging_to_mmdet(merging.norm.bias))
    normed = nn.functional.layer_norm(unfolded, (12,), *norm)
    theirs = nn.functional.linear(normed, merging_to_mmdet(merging.reduction.weight))
    torch.testing.assert_close(theirs, merging(x).flatten(1, 2))


def test_permutation_of_patch_merging_is_undone():
    value = torch.rand(8, 16)
    assert torch.equal(merging_to_ours(merging_to_mmdet(value)), value)


def test_averaged_copies_of_the_weights_are_left_out():
    theirs = checkpoint("resnet") | {"ema_backbone_conv1_weight": torch.ones(1)}
    renamed = from_mmdet(theirs)
    assert renamed.left_over == []
    assert not any("ema" in name for name in renamed.weights)
