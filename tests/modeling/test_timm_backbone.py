"""Any timm model: names by stride, layouts, freezing, pretrained weights with and without them."""

import parity_models
import pytest
import timm
import torch
from safetensors.torch import save_file

from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from mask2former.modeling.backbone.timm_backbone import TimmBackbone
from mask2former.modeling.errors import BackboneError

SWIN = dict(embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2))
FAMILIES = {
    "test_resnet": {},
    "test_convnext": {},
    "test_efficientnet": {},
    "test_nfnet": {},
    "mobilenetv3_small_050": {},
    "mobilenetv4_conv_small_050": {},
    "regnetx_002": {},
    "swin_tiny_patch4_window7_224": SWIN,
    "swinv2_tiny_window8_256": SWIN,
    "pvt_v2_b0": {},
}


def tiny(name="test_convnext", **options) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(name, **{"options": FAMILIES.get(name, {}), **options})


def config(*options):
    cfg = parity_models.default_config()
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "build_timm_backbone", *options])
    return cfg


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_named_by_stride_for_images_of_any_size(name):
    model = tiny(name).eval()
    shapes = model.output_shape()
    assert {key: shape.stride for key, shape in shapes.items()} == {
        "res2": 4,
        "res3": 8,
        "res4": 16,
        "res5": 32,
    }
    for key, feature in model(torch.randn(1, 3, 70, 97)).items():
        stride = shapes[key].stride
        assert feature.shape == (1, shapes[key].channels, -(-70 // stride), -(-97 // stride))


def test_channels_last_outputs_are_turned():
    name = "swin_tiny_patch4_window7_224"
    model, images = tiny(name).eval(), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        raw, features = model.model(images), model(images)
    for feature, original in zip(features.values(), raw):
        assert torch.equal(feature, original.permute(0, 3, 1, 2))


def test_outputs_that_look_channels_last_are_left_alone():
    """24 channels on a map of 24 x 24: only the declared layout tells."""
    model, images = tiny("test_convnext").eval(), torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(model(images)["res2"], model.model(images)[0])


def test_chosen_indices_give_other_names():
    model = tiny("test_resnet", out_indices=[0, 1, 3])
    assert list(model.output_shape()) == ["res1", "res2", "res4"]


@pytest.mark.parametrize("indices", [[3, 1, 2], [-1, -3, -2], [1, -1, 2]])
def test_features_keep_their_names_in_whatever_order_they_are_chosen(indices):
    model = tiny("test_convnext", out_indices=indices).eval()
    shapes = model.output_shape()
    assert list(shapes) == ["res3", "res4", "res5"]
    for name, feature in model(torch.randn(1, 3, 64, 96)).items():
        stride = shapes[name].stride
        assert feature.shape == (1, shapes[name].channels, 64 // stride, 96 // stride)


def test_default_features_are_found_where_the_first_one_is_not_numbered_0():
    assert list(tiny("dla46_c").output_shape()) == ["res2", "res3", "res4", "res5"]


@pytest.mark.parametrize(
    "freeze_at, frozen, free",
    [(1, "stem_0", "stages_0.blocks.0"), (2, "stages_0.blocks.0", "stages_1.downsample")],
)
def test_freeze_at_freezes_stem_and_stages(freeze_at, frozen, free):
    model = tiny("test_convnext", freeze_at=freeze_at, drop_path_rate=0.5).train()
    parameters = dict(model.named_parameters())
    state = {name: p.requires_grad for name, p in parameters.items()}
    assert not any(v for k, v in state.items() if k.startswith(f"model.{frozen}"))
    assert all(v for k, v in state.items() if k.startswith(f"model.{free}"))
    assert not model.get_submodule(f"model.{frozen}").training
    assert model.model.stages_3.training


def test_frozen_stages_keep_their_batch_statistics():
    model = tiny("test_resnet", freeze_at=2).train()
    before = {k: v.clone() for k, v in model.state_dict().items() if "running_mean" in k}
    model(torch.randn(2, 3, 64, 64))
    changed = [k for k, v in before.items() if not torch.equal(v, model.state_dict()[k])]
    assert changed and all("layer1" not in k and "model.bn1" not in k for k in changed)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
def test_frozen_batch_norms_have_no_parameters_and_the_same_output(name):
    plain, frozen = tiny(name).eval(), tiny(name, norm="FrozenBN")
    state = plain.state_dict()
    frozen.load_state_dict({k: v for k, v in state.items() if "num_batches" not in k}, strict=False)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for key, feature in plain(images).items():
            torch.testing.assert_close(frozen.train()(images)[key], feature)
    assert not [k for k, _ in frozen.named_parameters() if ".bn" in k]


def test_a_local_file_gives_the_weights(tmp_path):
    torch.manual_seed(3)
    original = timm.create_model("test_resnet", num_classes=7)
    for path in (tmp_path / "w.pth", tmp_path / "w.safetensors"):
        if path.suffix == ".pth":
            torch.save(original.state_dict(), path)
        else:
            save_file(original.state_dict(), str(path))
        for options in ({"pretrained": str(path)}, {"pretrained_file": str(path)}):
            model = tiny("test_resnet", **options)
            assert torch.equal(model.model.layer4[0].conv1.weight, original.layer4[0].conv1.weight)


def test_a_file_of_another_model_is_named(tmp_path):
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "other.pth")
    with pytest.raises(BackboneError, match=r"other.pth does not hold weights of test_resnet"):
        tiny("test_resnet", pretrained_file=str(tmp_path / "other.pth"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BackboneError, match=r"no_such.pth does not exist"):
        tiny("test_resnet", pretrained=str(tmp_path / "no_such.pth"))


def test_without_network_the_message_says_what_to_download(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", offline)
    with pytest.raises(BackboneError) as refusal:
        tiny("test_resnet", pretrained=True)
    message = str(refusal.value)
    assert "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.saf" in message
    assert "MODEL.TIMM.PRETRAINED_FILE" in message and "no route to host" in message


def test_timms_cache_serves_without_network(monkeypatch, tmp_path):
    torch.manual_seed(3)
    original = timm.create_model("test_resnet")
    folder = tmp_path / "models--timm--test_resnet.r160_in1k"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    save_file(original.state_dict(), str(folder / "snapshots" / "abc" / "model.safetensors"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = tiny("test_resnet", pretrained=True, options={"cache_dir": str(tmp_path)})
    assert torch.equal(model.model.layer4[0].conv1.weight, original.layer4[0].conv1.weight)


def test_trained_weights_of_the_whole_model_need_no_pretrained_ones(tmp_path):
    keys = ("MODEL.TIMM.NAME", "test_resnet", "MODEL.TIMM.PRETRAINED", True)
    cfg = config(*keys, "MODEL.TIMM.PRETRAINED_FILE", "gone.pth", "MODEL.WEIGHTS", "model.pth")
    assert isinstance(build_backbone(cfg), TimmBackbone)


def test_options_reach_timm():
    cfg = config("MODEL.TIMM.NAME", "test_convnext")
    cfg.MODEL.TIMM.OPTIONS.DIMS = [8, 16, 24, 32]
    shapes = build_backbone(cfg).output_shape()
    assert shapes["res5"] == ShapeSpec(channels=32, stride=32)


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("resnetty", {}, "no model 'resnetty'"),
        ("test_vit", {}, "D2ViTAdapter"),
        ("test_resnet", {"norm": "GN"}, "MODEL.TIMM.NORM 'GN'"),
        (
            "test_resnet.no_such",
            {},
            "no weights 'no_such' of test_resnet; possible are test_resnet",
        ),
        ("test_resnet", {"freeze_at": 9}, "FREEZE_AT is 9"),
        ("test_resnet", {"freeze_at": -1}, "FREEZE_AT is -1"),
        ("test_resnet", {"out_indices": [0, 9]}, "out_indices': \\[0, 9\\]"),
        ("test_resnet", {"out_indices": [3, -4]}, "OUT_INDICES"),
        ("hrnet_w18_small", {"use_checkpoint": True}, "USE_CHECKPOINT"),
        ("test_resnet", {"options": {"no_such": 1}}, "cannot build test_resnet"),
        ("test_vit", {"out_indices": [0, 1]}, "OUT_INDICES"),
    ],
)
def test_what_cannot_work_is_refused_by_key(name, options, said):
    with pytest.raises(BackboneError, match=said):
        tiny(name, **options)
