"""DeepLab and PointRend pieces."""

import random

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import detectron2
from detectron2.config import get_cfg
from detectron2.projects.deeplab import add_deeplab_config, build_lr_scheduler
from detectron2.projects.deeplab.loss import DeepLabCE
from detectron2.projects.point_rend import ColorAugSSDTransform
from detectron2.projects.point_rend.point_features import (
    generate_regular_grid_point_coords,
    get_point_coords_wrt_image,
    get_uncertain_point_coords_on_grid,
    get_uncertain_point_coords_with_randomness,
    point_sample,
)


def deeplab_config():
    cfg = get_cfg()
    add_deeplab_config(cfg)
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    cfg.SOLVER.MAX_ITER = 10
    cfg.SOLVER.WARMUP_ITERS = 3
    cfg.SOLVER.WARMUP_FACTOR = 0.1
    return cfg


def rates(cfg, count=10):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = build_lr_scheduler(cfg, optimizer)
    values = []
    for _ in range(count):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def test_the_polynomial_schedule_is_detectron2s():
    expected = [0.1, 0.3638, 0.5726, 0.7254, 0.6314, 0.5359, 0.4384, 0.3384, 0.2349, 0.1259]
    assert rates(deeplab_config()) == pytest.approx(expected, abs=5e-5)


def test_the_polynomial_schedule_has_a_floor_after_the_warm_up():
    cfg = deeplab_config()
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.4
    values = rates(cfg)
    assert values[0] == pytest.approx(0.1)
    assert values[7:] == pytest.approx([0.4] * 3)


def test_a_constant_warm_up():
    cfg = deeplab_config()
    cfg.SOLVER.WARMUP_METHOD = "constant"
    assert rates(cfg)[1] == pytest.approx(0.1 * 0.9**0.9)
    cfg.SOLVER.WARMUP_METHOD = "cubic"
    with pytest.raises(ValueError, match="cubic"):
        rates(cfg)


def test_other_schedules_are_left_to_the_solver():
    cfg = deeplab_config()
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    cfg.SOLVER.STEPS = (6, 9)
    assert rates(cfg) == pytest.approx([0.1, 0.4, 0.7, 1, 1, 1, 0.1, 0.1, 0.1, 0.01])


def test_deeplab_keys_have_their_published_defaults():
    cfg = deeplab_config()
    assert cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA == 1.0
    assert (cfg.SOLVER.POLY_LR_POWER, cfg.SOLVER.POLY_LR_CONSTANT_ENDING) == (0.9, 0.0)
    assert cfg.MODEL.RESNETS.RES5_MULTI_GRID == [1, 2, 4]
    assert cfg.MODEL.RESNETS.STEM_TYPE == "deeplab" and cfg.MODEL.RESNETS.RES4_DILATION == 1


@pytest.mark.parametrize("stem", ["deeplab", "basic"])
def test_the_dilated_resnet_keeps_the_resolution_of_res5(stem):
    from detectron2.modeling import build_backbone

    cfg = deeplab_config()
    cfg.MODEL.BACKBONE.NAME = "build_resnet_deeplab_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.merge_from_list(
        ["STEM_TYPE", stem, "RES5_DILATION", 2, "NORM", "BN", "OUT_FEATURES", ["res2", "res5"]]
    )
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    backbone = build_backbone(cfg).to("meta")
    outputs = backbone(torch.zeros(2, 3, 64, 64, device="meta"))
    assert outputs["res5"].shape == (2, 128, 4, 4)
    assert backbone.output_shape()["res5"].stride == 16
    assert [block.conv2.dilation[0] for block in backbone.res5] == [2, 4, 8]
    assert hasattr(backbone.stem, "conv3") == (stem == "deeplab")


def test_hard_pixel_cross_entropy():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    labels[0, 0] = 255
    pixels = F.cross_entropy(logits, labels, ignore_index=255, reduction="none").flatten()
    assert DeepLabCE(255)(logits, labels) == pytest.approx(pixels.mean().item())
    hardest = pixels.sort(descending=True).values[:8].mean().item()
    assert DeepLabCE(255, 0.25)(logits, labels) == pytest.approx(hardest)


def test_point_sample_reads_between_pixel_centres():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    points = torch.tensor([[[0, 0], [0.5, 0.5], [0.125, 0.125], [1, 1]]], dtype=torch.float32)
    sampled = point_sample(image, points, align_corners=False)
    assert sampled.shape == (1, 1, 4)
    torch.testing.assert_close(sampled[0, 0], torch.tensor([0, 7.5, 0, 3.75]))
    grid = point_sample(image, points.view(1, 2, 2, 2), align_corners=False)
    assert torch.equal(grid.flatten(), sampled.flatten())


@pytest.mark.skipif(not getattr(detectron2, "__d2lite__", False), reason="needs autocast there")
def test_half_precision_maps_are_read_at_full_precision_points():
    image = torch.rand(1, 2, 64, 64)
    points = torch.rand(1, 9, 2)
    sampled = point_sample(image.bfloat16(), points, align_corners=False)
    torch.testing.assert_close(
        sampled.float(), point_sample(image, points, align_corners=False), atol=0.01, rtol=0.01
    )


def uncertain(logits):
    return -logits.abs()[:, :1]


def test_uncertain_points_lie_where_the_logits_cross_zero():
    torch.manual_seed(0)
    logits = torch.linspace(-8, 8, 64).view(1, 1, 1, 64).repeat(3, 1, 64, 1)
    points = get_uncertain_point_coords_with_randomness(logits, uncertain, 100, 3, 0.75)
    assert points.shape == (3, 100, 2)
    assert (points[:, :75, 0] - 0.5).abs().max() < 0.2
    assert (points[:, 75:, 0] - 0.5).abs().max() > 0.4


def test_uncertain_points_are_drawn_as_detectron2():
    logits = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(7)
    points = get_uncertain_point_coords_with_randomness(logits, uncertain, 8, 3.0, 0.75)
    torch.manual_seed(7)
    candidates = torch.rand(2, 24, 2)
    values = point_sample(logits, candidates, align_corners=False)[:, 0].abs()
    for i in range(2):
        assert torch.equal(points[i, :6], candidates[i, values[i].argsort()[:6]])
    assert torch.equal(points[:, 6:], torch.rand(2, 2, 2))


def test_no_maps_give_no_points():
    points = get_uncertain_point_coords_with_randomness(
        torch.zeros(0, 1, 8, 8), uncertain, 8, 3.0, 0.75
    )
    assert points.shape == (0, 8, 2)


@pytest.mark.parametrize(("oversample", "importance"), [(0.5, 0.5), (3, 1.5), (3, -0.1)])
def test_sampling_ratios_are_checked(oversample, importance):
    with pytest.raises(AssertionError):
        get_uncertain_point_coords_with_randomness(
            torch.zeros(1, 1, 8, 8), uncertain, 8, oversample, importance
        )


def test_the_most_uncertain_pixels_of_a_grid():
    uncertainty = torch.zeros(1, 1, 2, 4)
    uncertainty[0, 0, 1, 2] = 1
    indices, coords = get_uncertain_point_coords_on_grid(uncertainty, 1)
    assert indices.tolist() == [[6]] and coords.tolist() == [[[0.625, 0.75]]]


def test_regular_grids_and_boxes():
    grid = generate_regular_grid_point_coords(2, 2, torch.device("cpu"))
    assert grid[1].tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    boxes = torch.tensor([[0.0, 0, 4, 8], [2, 2, 4, 4]])
    assert get_point_coords_wrt_image(boxes, grid)[:, 3].tolist() == [[3, 6], [3.5, 3.5]]


def reference_jitter(img, is_rgb):
    """The published steps, pixel by pixel in float32."""

    def line(img, alpha=1.0, beta=0.0):
        return np.clip(img.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)

    def brightness(img):
        return line(img, beta=random.uniform(-32, 32)) if random.randrange(2) else img

    def contrast(img):
        return line(img, alpha=random.uniform(0.5, 1.5)) if random.randrange(2) else img

    def saturation(img):
        if not random.randrange(2):
            return img
        hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
        hsv[:, :, 1] = line(hsv[:, :, 1], alpha=random.uniform(0.5, 1.5))
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

    def hue(img):
        if not random.randrange(2):
            return img
        hsv = cv2.cvtColor(img, cv2.COLOR_BGR2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0].astype(int) + random.randint(-18, 18)) % 180
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

    img = np.ascontiguousarray(img[:, :, ::-1]) if is_rgb else img
    img = brightness(img)
    steps = (contrast, saturation, hue) if random.randrange(2) else (saturation, hue, contrast)
    for step in steps:
        img = step(img)
    return img[:, :, ::-1] if is_rgb else img


@pytest.mark.parametrize("img_format", ["BGR", "RGB"])
def test_the_colour_jitter_is_the_published_one(img_format):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    original = image.copy()
    transform = ColorAugSSDTransform(img_format)
    for seed in range(30):
        random.seed(seed)
        jittered = transform.apply_image(image)
        random.seed(seed)
        assert np.array_equal(jittered, reference_jitter(image, img_format == "RGB")), seed
    assert np.array_equal(image, original)


def test_the_colour_jitter_leaves_labels_and_takes_any_strides():
    transform = ColorAugSSDTransform("RGB")
    labels = np.ones((2, 2))
    assert transform.apply_segmentation(labels) is labels
    random.seed(3)
    assert transform.apply_image(np.zeros((4, 4, 3), np.uint8)[:, ::-1, ::-1]).shape == (4, 4, 3)
    with pytest.raises(AssertionError):
        ColorAugSSDTransform("L")
