"""The published converters: two paths, a detectron2 pickle out, one clear line when it fails."""

import pickle
import runpy
from collections import OrderedDict
from pathlib import Path

import parity_models
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_backbone

TOOLS = Path(__file__).parents[2] / "tools"


def run(script: str, *arguments) -> int:
    main = runpy.run_path(str(TOOLS / script))["main"]
    return main([str(argument) for argument in arguments])


def unpickle(path) -> dict:
    with open(path, "rb") as file:
        return pickle.load(file)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    net = torchvision.models.resnet50(num_classes=3)
    for norm in net.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(norm.running_var, 0.8, 1.2)
    return net.eval()


@pytest.fixture(scope="module")
def resnet_pickle(resnet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    torch.save(resnet.state_dict(), folder / "in.pth")
    assert run("convert-torchvision-to-d2.py", folder / "in.pth", folder / "out.pkl") == 0
    return folder / "out.pkl"


def test_torchvision_names_become_detectron2s(resnet_pickle):
    names = unpickle(resnet_pickle)["model"]
    for expected in (
        "stem.conv1.weight",
        "stem.conv1.norm.running_var",
        "res2.0.shortcut.weight",
        "res2.0.shortcut.norm.bias",
        "res5.2.conv3.norm.weight",
        "stem.fc.weight",
    ):
        assert expected in names


def test_torchvision_output_has_the_published_form(resnet_pickle):
    data = unpickle(resnet_pickle)
    assert set(data) == {"model", "__author__", "matching_heuristics"}
    assert (data["__author__"], data["matching_heuristics"]) == ("torchvision", True)
    assert type(data["model"]["stem.conv1.weight"]).__name__ == "ndarray"


def test_converted_resnet_computes_what_torchvisions_does(resnet, resnet_pickle):
    cfg = parity_models.default_config()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    cfg.MODEL.RESNETS.STEM_TYPE = "basic"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res5"]
    backbone = build_backbone(cfg).eval()
    DetectionCheckpointer(torch.nn.ModuleDict({"backbone": backbone})).load(str(resnet_pickle))
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours = backbone(image)["res5"]
        x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(image))))
        theirs = resnet.layer4(resnet.layer3(resnet.layer2(resnet.layer1(x))))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_each_torchvision_weight_is_printed_with_its_new_name(tmp_path, capsys):
    torch.save({"layer1.0.bn1.weight": torch.ones(2)}, tmp_path / "in.pth")
    run("convert-torchvision-to-d2.py", tmp_path / "in.pth", tmp_path / "out.pkl")
    assert "layer1.0.bn1.weight -> res2.0.conv1.norm.weight" in capsys.readouterr().out


def test_swin_weights_are_stored_unchanged(tmp_path):
    state = OrderedDict(
        {"patch_embed.proj.weight": torch.rand(4, 3, 4, 4), "norm.bias": torch.ones(2)}
    )
    torch.save({"model": state, "epoch": 3}, tmp_path / "in.pth")
    assert (
        run("convert-pretrained-swin-model-to-d2.py", tmp_path / "in.pth", tmp_path / "out.pkl")
        == 0
    )
    data = unpickle(tmp_path / "out.pkl")
    assert (data["__author__"], data["matching_heuristics"]) == ("third_party", True)
    assert list(data["model"]) == list(state)
    assert all(torch.equal(data["model"][name], state[name]) for name in state)


def test_converted_swin_lands_in_the_backbone(tmp_path):
    cfg = parity_models.default_config()
    cfg.MODEL.BACKBONE.NAME = "D2SwinTransformer"
    cfg.MODEL.SWIN.EMBED_DIM = 8
    cfg.MODEL.SWIN.DEPTHS = [1, 1, 1, 1]
    cfg.MODEL.SWIN.NUM_HEADS = [1, 1, 1, 1]
    source, target = build_backbone(cfg), build_backbone(cfg)
    file = {k: v for k, v in source.state_dict().items() if not k.startswith("norm")}
    torch.save({"model": file | {"head.weight": torch.ones(2, 8)}}, tmp_path / "in.pth")
    run("convert-pretrained-swin-model-to-d2.py", tmp_path / "in.pth", tmp_path / "out.pkl")
    DetectionCheckpointer(torch.nn.ModuleDict({"backbone": target})).load(str(tmp_path / "out.pkl"))
    loaded = target.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in file.items())


def test_safetensors_are_read_too(tmp_path):
    save_file({"patch_embed.proj.weight": torch.ones(1)}, tmp_path / "in.safetensors")
    arguments = (tmp_path / "in.safetensors", tmp_path / "out.pkl")
    assert run("convert-pretrained-swin-model-to-d2.py", *arguments) == 0
    assert list(unpickle(tmp_path / "out.pkl")["model"]) == ["patch_embed.proj.weight"]


def test_training_objects_in_the_file_do_not_matter(tmp_path):
    class_from_elsewhere = type("Args", (), {"__module__": __name__})
    globals()["Args"] = class_from_elsewhere
    data = {"model": {"norm.bias": torch.ones(2)}, "args": class_from_elsewhere()}
    torch.save(data, tmp_path / "in.pth")
    assert (
        run("convert-pretrained-swin-model-to-d2.py", tmp_path / "in.pth", tmp_path / "out.pkl")
        == 0
    )


class RunsCode:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save(
        {"model": {"a": torch.ones(1)}, "x": RunsCode(tmp_path / "ran")}, tmp_path / "in.pth"
    )
    assert (
        run("convert-pretrained-swin-model-to-d2.py", tmp_path / "in.pth", tmp_path / "out.pkl")
        == 0
    )
    assert not (tmp_path / "ran").exists()


def failure(capsys, *arguments) -> str:
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_swin_file_without_model_is_refused(tmp_path, capsys):
    torch.save({"patch_embed.proj.weight": torch.ones(1)}, tmp_path / "in.pth")
    line = failure(
        capsys, "convert-pretrained-swin-model-to-d2.py", tmp_path / "in.pth", tmp_path / "out.pkl"
    )
    assert "'model'" in line


def test_output_that_would_not_be_recognised_is_refused(tmp_path, capsys):
    torch.save({"model": {"a": torch.ones(1)}}, tmp_path / "in.pth")
    script = "convert-pretrained-swin-model-to-d2.py"
    assert ".pkl" in failure(capsys, script, tmp_path / "in.pth", tmp_path / "out.pth")


def test_missing_and_damaged_inputs_are_named(tmp_path, capsys):
    script = "convert-torchvision-to-d2.py"
    assert "no such file" in failure(capsys, script, tmp_path / "no.pth", tmp_path / "out.pkl")
    (tmp_path / "bad.pth").write_bytes(b"not a checkpoint")
    assert "damaged" in failure(capsys, script, tmp_path / "bad.pth", tmp_path / "out.pkl")


@pytest.mark.parametrize(
    "script", ["convert-torchvision-to-d2.py", "convert-pretrained-swin-model-to-d2.py"]
)
def test_help_shows_an_example(script, capsys):
    with pytest.raises(SystemExit, match="0"):
        run(script, "--help")
    assert f"python tools/{script}" in capsys.readouterr().out
