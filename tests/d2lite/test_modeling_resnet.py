"""ResNet: names and shapes of the published checkpoints, values of torchvision's networks."""

import gzip
import json
from pathlib import Path

import pytest
import torch
import torchvision

from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_backbone
from detectron2.modeling.backbone.resnet import BasicStem, BottleneckBlock, ResNet

FIXTURE = Path(__file__).parents[1] / "fixtures" / "d2lite" / "resnet_state_dicts.json.gz"
RECORDED = json.loads(gzip.decompress(FIXTURE.read_bytes()))


def resnet(depth=50, out_features=("res2", "res3", "res4", "res5"), freeze_at=0, **options):
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.OUT_FEATURES = list(out_features)
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    if depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    for name, value in options.items():
        cfg.MODEL.RESNETS[name] = value
    return build_backbone(cfg)


@pytest.mark.parametrize(
    ("recorded", "depth", "norm"),
    [
        ("r50_coco_panoptic", 50, "FrozenBN"),
        ("r101_coco_panoptic", 101, "FrozenBN"),
        ("r50_cityscapes_panoptic", 50, "SyncBN"),
    ],
)
def test_names_shapes_and_order_are_the_published_ones(recorded, depth, norm):
    with torch.device("meta"):
        model = resnet(depth, NORM=norm)
    parameters = {name for name, _ in model.named_parameters()}
    entries = [
        [name, list(value.shape), "p" if name in parameters else "b"]
        for name, value in model.state_dict().items()
    ]
    assert entries == RECORDED[recorded]


def to_torchvision(name):
    """Our parameter name in torchvision's network."""
    name = name.replace("stem.conv1.norm", "bn1").replace("stem.conv1", "conv1")
    for i in range(2, 6):
        name = name.replace(f"res{i}.", f"layer{i - 1}.")
    name = name.replace("shortcut.norm", "downsample.1").replace("shortcut", "downsample.0")
    for i in range(1, 4):
        name = name.replace(f"conv{i}.norm", f"bn{i}")
    return name


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_features_equal_torchvisions(depth):
    torch.manual_seed(0)
    model = resnet(depth, NORM="BN").eval()
    reference = getattr(torchvision.models, f"resnet{depth}")(weights=None).eval()
    reference.load_state_dict(
        {to_torchvision(k): v for k, v in model.state_dict().items()}, strict=False
    )
    image = torch.rand(1, 3, 65, 96)
    with torch.no_grad():
        features = model(image)
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
        for i in range(1, 5):
            x = getattr(reference, f"layer{i}")(x)
            torch.testing.assert_close(features[f"res{i + 1}"], x, rtol=1e-5, atol=1e-5)


def test_output_shape_lists_channels_and_strides_in_the_requested_order():
    shapes = resnet(out_features=["res3", "res5"]).output_shape()
    assert list(shapes) == ["res3", "res5"]
    assert [(s.channels, s.stride) for s in shapes.values()] == [(512, 8), (2048, 32)]


def test_stages_after_the_last_output_are_not_built():
    model = resnet(out_features=["res3"])
    assert model.stage_names == ("res2", "res3")
    assert not any(name.startswith("res4") for name in model.state_dict())


def test_stride_sits_in_the_first_convolution_when_asked():
    for in_1x1, strides in ((True, (2, 1)), (False, (1, 2))):
        block = resnet(STRIDE_IN_1X1=in_1x1).res3[0]
        assert (block.conv1.stride[0], block.conv2.stride[0]) == strides


def test_dilated_res5_keeps_the_resolution_of_res4():
    model = resnet(RES5_DILATION=2)
    features = model(torch.rand(1, 3, 64, 64))
    assert features["res5"].shape[-2:] == features["res4"].shape[-2:] == (4, 4)
    assert model.output_shape()["res5"].stride == 16
    assert model.res5[0].conv2.padding == (2, 2)


def test_groups_and_width_make_a_resnext():
    conv = resnet(NUM_GROUPS=32, WIDTH_PER_GROUP=4).res2[0].conv2
    assert (conv.groups, conv.out_channels) == (32, 128)


@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_stages_start_as_ordinary_ones(modulated):
    torch.manual_seed(0)
    options = {"DEFORM_ON_PER_STAGE": [False, False, True, True], "DEFORM_MODULATED": modulated}
    deformable = resnet(NORM="BN", **options).eval()
    plain = resnet(NORM="BN").eval()
    plain.load_state_dict(deformable.state_dict(), strict=False)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = deformable(image)["res4"], plain(image)["res4"]
    if modulated:  # its weights start at sigmoid(0), not at 1
        assert ours.shape == theirs.shape
    else:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 5])
def test_freezing_stops_gradients_and_norms_up_to_the_given_stage(freeze_at):
    model = resnet(freeze_at=freeze_at, NORM="BN")
    parts = [model.stem, *model.stages]
    for i, part in enumerate(parts, start=1):
        frozen = i <= freeze_at
        assert all(p.requires_grad != frozen for p in part.parameters())
        norms = [m for m in part.modules() if isinstance(m, FrozenBatchNorm2d)]
        assert bool(norms) == frozen


def test_classifier_gives_one_score_per_class():
    model = ResNet(
        BasicStem(),
        ResNet.make_default_stages(18, norm="BN"),
        num_classes=7,
        out_features=["linear"],
    )
    assert model(torch.rand(2, 3, 64, 64))["linear"].shape == (2, 7)


def test_per_block_values_reach_their_blocks():
    blocks = ResNet.make_stage(
        BottleneckBlock,
        3,
        in_channels=16,
        out_channels=32,
        bottleneck_channels=8,
        stride_per_block=[2, 1, 1],
        dilation_per_block=[1, 2, 4],
    )
    assert [b.stride for b in blocks] == [2, 1, 1]
    assert [b.conv2.dilation[0] for b in blocks] == [1, 2, 4]
    assert [b.in_channels for b in blocks] == [16, 32, 32]


def test_per_block_list_of_another_length_is_refused():
    with pytest.raises(AssertionError, match="must have 3 values"):
        ResNet.make_stage(
            BottleneckBlock,
            3,
            in_channels=16,
            out_channels=32,
            bottleneck_channels=8,
            stride_per_block=[2, 1],
        )


def test_unknown_depth_output_and_option_are_named():
    with pytest.raises(KeyError, match=r"MODEL\.RESNETS\.DEPTH 51"):
        resnet(51)
    with pytest.raises(AssertionError, match="no output 'res9'"):
        resnet(out_features=["res9"])
    with pytest.raises(AssertionError, match="RES2_OUT_CHANNELS = 64"):
        resnet(18, RES2_OUT_CHANNELS=256)


def test_registered_entry_must_build_a_backbone():
    @BACKBONE_REGISTRY.register()
    def not_a_backbone(cfg, input_shape):
        return torch.nn.Identity()

    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "not_a_backbone"
    with pytest.raises(AssertionError, match="not_a_backbone"):
        build_backbone(cfg)


def test_own_backbone_needs_three_attributes_and_forward():
    class Tiny(Backbone):
        def __init__(self):
            super().__init__()
            self._out_features = ["a"]
            self._out_feature_channels = {"a": 4}
            self._out_feature_strides = {"a": 2}

        def forward(self, x):
            return {"a": x}

    tiny = Tiny()
    assert tiny.output_shape() == {"a": ShapeSpec(channels=4, stride=2)}
    assert (tiny.size_divisibility, tiny.padding_constraints) == (0, {})
