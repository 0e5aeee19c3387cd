"""The segmentation heads: recorded logits, losses and gradients of the per-pixel baselines."""

import parity_cases
import parity_models
import pytest
import torch
from torch import nn

from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from mask2former.modeling.errors import BackboneError
from mask2former.modeling.meta_arch.mask_former_head import MaskFormerHead
from mask2former.modeling.meta_arch.per_pixel_baseline import PerPixelBaselineHead

PER_PIXEL = ["per_pixel_baseline", "per_pixel_baseline_plus"]


def training_inputs(case: str) -> list[dict]:
    inputs = parity_cases.arrays(case, "train_inputs")
    return [
        {
            "image": torch.from_numpy(inputs[f"image_{i}"]),
            "sem_seg": torch.from_numpy(inputs[f"sem_seg_{i}"]).long(),
        }
        for i in range(2)
    ]


@pytest.mark.parametrize("case", PER_PIXEL)
def test_per_pixel_inference_equals_the_recorded_one(case):
    model = parity_models.model(case)
    with torch.no_grad():
        outputs = model(parity_models.batched_inputs(case))
    recorded = parity_cases.arrays(case, "outputs")
    for i, output in enumerate(outputs):
        expected = torch.from_numpy(recorded[f"img{i}_sem_seg"])
        torch.testing.assert_close(output["sem_seg"], expected, rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("case", PER_PIXEL)
def test_per_pixel_losses_equal_the_recorded_ones(case):
    losses = parity_models.model(case).train()(training_inputs(case))
    recorded = parity_cases.facts(case, "train_outputs")["losses"]
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(recorded, rel=1e-5)


@pytest.mark.parametrize("case", PER_PIXEL)
def test_per_pixel_gradients_equal_the_recorded_ones(case):
    model = parity_models.model(case).train()
    sum(model(training_inputs(case)).values()).backward()
    found = {k: p.grad.norm().item() for k, p in model.named_parameters() if p.grad is not None}
    recorded = parity_cases.facts(case, "train_outputs")["grad_norms"]
    assert found == pytest.approx(recorded, rel=3e-3, abs=1e-5)


def test_pixels_without_a_label_cost_nothing():
    head = _per_pixel_head(ignore_value=255).train()
    logits = torch.randn(1, 3, 2, 2)
    labels = torch.full((1, 8, 8), 255)
    labels[:, :, :4] = 1
    loss = head.loss(logits, labels)
    upsampled = nn.functional.interpolate(logits, size=(8, 8), mode="bilinear")
    expected = nn.functional.cross_entropy(upsampled[..., :4], labels[..., :4])
    torch.testing.assert_close(loss, expected * 0.5)


def test_training_images_need_not_be_multiples_of_the_stride():
    # The published head stops here; with a ResNet nothing pads the batch.
    model = parity_models.model("per_pixel_baseline").train()
    image = torch.randint(0, 256, (3, 70, 53), dtype=torch.uint8)
    losses = model([{"image": image, "sem_seg": torch.zeros(70, 53, dtype=torch.long)}])
    assert losses["loss_sem_seg"].isfinite()


def test_features_the_backbone_does_not_give_are_named():
    cfg = parity_models.config("r50_panoptic", "MODEL.RESNETS.OUT_FEATURES", ["res4", "res5"])
    with pytest.raises(
        BackboneError, match=r"\['res2', 'res3'\].*build_resnet_backbone.*OUT_FEATURES"
    ):
        build_model(cfg)


def test_deep_supervision_switches_the_auxiliary_losses():
    case = "per_pixel_baseline_plus"
    cfg = parity_models.config(case, "MODEL.MASK_FORMER.DEEP_SUPERVISION", False)
    losses = build_model(cfg).train()(training_inputs(case))
    assert list(losses) == ["loss_sem_seg"]


class _PixelDecoder(nn.Module):
    mask_dim = 6

    def forward_features(self, features):
        return features["res2"], None, [features["res5"], features["res4"], features["res3"]]


class _Predictor(nn.Module):
    def forward(self, x, mask_features, mask):
        return {"attended": x, "mask_features": mask_features, "mask": mask}


def _per_pixel_head(**options) -> PerPixelBaselineHead:
    shape = {"res2": ShapeSpec(channels=6, stride=4)}
    return PerPixelBaselineHead(
        shape, num_classes=3, pixel_decoder=_PixelDecoder(), loss_weight=0.5, **options
    )


def _mask_former_head(in_feature: str) -> MaskFormerHead:
    return MaskFormerHead(
        {"res2": ShapeSpec(channels=6, stride=4)},
        num_classes=3,
        pixel_decoder=_PixelDecoder(),
        transformer_predictor=_Predictor(),
        transformer_in_feature=in_feature,
    )


FEATURES = {name: torch.full((1,), i) for i, name in enumerate(["res2", "res3", "res4", "res5"])}


@pytest.mark.parametrize(
    "in_feature, attended",
    [
        ("multi_scale_pixel_decoder", [FEATURES["res5"], FEATURES["res4"], FEATURES["res3"]]),
        ("pixel_embedding", FEATURES["res2"]),
        ("res4", FEATURES["res4"]),
    ],
)
def test_decoder_attends_to_what_the_config_names(in_feature, attended):
    outputs = _mask_former_head(in_feature)(FEATURES, mask="mask")
    assert outputs == {"attended": attended, "mask_features": FEATURES["res2"], "mask": "mask"}


def test_transformer_encoder_needs_a_pixel_decoder_that_has_one():
    with pytest.raises(ValueError, match="has no transformer encoder"):
        _mask_former_head("transformer_encoder")(FEATURES)


def test_unknown_in_feature_is_named_with_the_possible_ones():
    cfg = parity_models.config("r50_panoptic", "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res9")
    with pytest.raises(KeyError, match=r"res9.*pixel_embedding.*res5"):
        build_model(cfg)


def test_masks_have_the_common_stride():
    cfg = parity_models.config("r50_panoptic", "MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 8)
    model = build_model(cfg).eval()
    batch = parity_models.batched_inputs("r50_panoptic")
    with torch.no_grad():
        images = model.preprocess_image(batch).tensor
        assert model.predictions(images)["pred_masks"].shape[2] == images.shape[2] // 8
        result = model(batch)[0]
    assert result["panoptic_seg"][0].shape == (batch[0]["height"], batch[0]["width"])


def test_a_common_stride_coarser_than_the_encoder_is_refused():
    cfg = parity_models.config("r50_panoptic", "MODEL.SEM_SEG_HEAD.COMMON_STRIDE", 16)
    with pytest.raises(ValueError, match=r"COMMON_STRIDE is 16.*set it to 8"):
        build_model(cfg)
