"""What every backbone can: freeze, drop paths, recompute, 16 bits, odd sizes, torch.compile."""

from pathlib import Path

import pytest
import torch
from parity_models import default_config

import mask2former.modeling  # noqa: F401 - registers the backbones
from detectron2.modeling import build_backbone, build_model
from mask2former.ops import use_implementation

SHAPES = Path(__file__).parents[2] / "configs" / "shapes" / "panoptic-segmentation"
NAMES = ("res2", "res3", "res4", "res5")
_SWIN = {
    "MODEL.BACKBONE.NAME": "D2SwinTransformer",
    "MODEL.SWIN.EMBED_DIM": 16,
    "MODEL.SWIN.DEPTHS": [1, 1, 2, 1],
    "MODEL.SWIN.NUM_HEADS": [1, 1, 2, 2],
    "MODEL.SWIN.WINDOW_SIZE": 4,
}
# Name -> config file on "shapes", further keys, the key of drop path, that of recomputing, and of
# freezing with a value and the parameters that it freezes.
ADAPTER = "MODEL.VIT_ADAPTER."
BACKBONES = {
    "resnet": ("R50_tiny", {}, None, None, ("MODEL.BACKBONE.FREEZE_AT", 2, "res2")),
    "swin": (
        "R50_tiny",
        _SWIN,
        "MODEL.SWIN.DROP_PATH_RATE",
        "MODEL.SWIN.USE_CHECKPOINT",
        ("MODEL.SWIN.FROZEN_STAGES", 2, "layers.0"),
    ),
    "timm_convnext": (
        "convnext_tiny_timm",
        {},
        "MODEL.TIMM.DROP_PATH_RATE",
        "MODEL.TIMM.USE_CHECKPOINT",
        ("MODEL.TIMM.FREEZE_AT", 2, "model.stages_0"),
    ),
    "timm_resnet": (
        "convnext_tiny_timm",
        {"MODEL.TIMM.NAME": "test_resnet"},
        None,
        "MODEL.TIMM.USE_CHECKPOINT",
        ("MODEL.TIMM.FREEZE_AT", 2, "model.layer1"),
    ),
    **{
        name: (
            f"{name}_tiny",
            {},
            f"{ADAPTER}DROP_PATH_RATE",
            f"{ADAPTER}USE_CHECKPOINT",
            (f"{ADAPTER}FREEZE_ENCODER", True, part),
        )
        for name, part in (
            ("beit_adapter", "blocks"),
            ("dinov2_adapter", "encoder"),
            ("dinov3_adapter", "encoder"),
        )
    },
}


def config(name, *options):
    file, keys, *_ = BACKBONES[name]
    cfg = default_config()
    cfg.merge_from_file(str(SHAPES / f"maskformer2_{file}.yaml"))
    cfg.merge_from_list([x for item in keys.items() for x in item])
    drop_path = BACKBONES[name][2]
    if drop_path:
        cfg.merge_from_list([drop_path, 0.0])
    cfg.merge_from_list(list(options))
    return cfg


def backbone(name, *options):
    torch.manual_seed(0)
    return build_backbone(config(name, *options))


def with_key(position):
    return [name for name, facts in BACKBONES.items() if facts[position]]


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("height, width", [(64, 96), (33, 61)])
def test_sizes_need_not_be_multiples_of_anything(name, height, width):
    model = backbone(name).eval()
    shapes = model.output_shape()
    assert [shapes[key].stride for key in NAMES] == [4, 8, 16, 32]
    for key, feature in model(torch.randn(1, 3, height, width)).items():
        stride = shapes[key].stride
        size = (-(-height // stride), -(-width // stride))
        assert feature.shape == (1, shapes[key].channels, *size)


@pytest.mark.parametrize("divisibility", [-1, 50])
@pytest.mark.parametrize("name", BACKBONES)
def test_the_whole_model_takes_any_size_divisibility(name, divisibility):
    cfg = config(name, "MODEL.MASK_FORMER.SIZE_DIVISIBILITY", divisibility)
    model = build_model(cfg).eval()
    images = [{"image": torch.zeros(3, 45, 70)}, {"image": torch.zeros(3, 33, 81)}]
    with torch.no_grad():
        results = model(images)
    assert [result["sem_seg"].shape for result in results] == [(12, 45, 70), (12, 33, 81)]


@pytest.mark.parametrize("name", with_key(2))
def test_drop_path_acts_in_training_only(name):
    model, images = backbone(name, BACKBONES[name][2], 0.9), torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        first, second = model.train()(images), model(images)
        assert any(not torch.equal(first[key], second[key]) for key in NAMES)
        first, second = model.eval()(images), model(images)
    assert all(torch.equal(first[key], second[key]) for key in NAMES)


@pytest.mark.parametrize("name", with_key(3))
def test_recomputing_changes_no_gradient(name):
    images, gradients = torch.randn(2, 3, 40, 56), []
    for use_checkpoint in (False, True):
        model = backbone(name, BACKBONES[name][3], use_checkpoint).train()
        sum(feature.square().mean() for feature in model(images).values()).backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    assert any(gradient is not None for gradient in gradients[0].values())
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient)


@pytest.mark.parametrize("name", with_key(3))
def test_what_is_recomputed_is_made_by_the_implementation_that_ran(name):
    """Backward of a step with MODEL.FAST False runs where the references are off again."""
    images, gradients = torch.randn(2, 3, 40, 56, dtype=torch.float64), []
    for use_checkpoint in (False, True):
        model = backbone(name, BACKBONES[name][3], use_checkpoint).double().train()
        with use_implementation("reference"):
            loss = sum(feature.square().mean() for feature in model(images).values())
        loss.backward()
        gradients.append({key: p.grad for key, p in model.named_parameters()})
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient)


@pytest.mark.parametrize("name", with_key(4))
def test_frozen_parts_do_not_learn(name):
    key, value, part = BACKBONES[name][4]
    model = backbone(name, key, value).train()
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    parts = [n for n, _ in model.named_parameters() if n.startswith(f"{part}.")]
    assert set(parts) <= set(frozen)
    sum(feature.mean() for feature in model(torch.randn(2, 3, 64, 64)).values()).backward()
    assert any(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", BACKBONES)
def test_bfloat16_is_near_float32(name):
    model, images = backbone(name).eval(), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images)
    for key, feature in exact.items():
        error = (rough[key].float() - feature).norm() / feature.norm()
        assert error < 0.05


@pytest.mark.parametrize("name", BACKBONES)
def test_gradients_are_finite_in_bfloat16(name):
    model = backbone(name).train()
    with torch.autocast("cpu", torch.bfloat16):
        features = model(torch.randn(2, 3, 64, 64))
    sum(feature.float().square().mean() for feature in features.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# The others were compiled by hand (docs/backbones.md); each takes seconds.
@pytest.mark.parametrize("name", ["timm_convnext", "beit_adapter"])
def test_the_graph_has_no_breaks(name):
    model, images = backbone(name).eval(), torch.randn(1, 3, 64, 96)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        for key, feature in model(images).items():
            torch.testing.assert_close(compiled(images)[key], feature)
