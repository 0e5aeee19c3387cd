"""MODEL.FAST in training: the same losses, gradients and checkpoints, by another way."""

import copy

import parity_models
import pytest
import torch

from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_model
from mask2former.modeling.fast_training import (
    MergedConv2d,
    merge_frozen_norms,
    prepare_for_training,
)


@pytest.fixture
def pair():
    """A convolution with a frozen norm in float64, and the same merged."""
    torch.manual_seed(0)
    plain = Conv2d(3, 8, 3, padding=1, bias=True, norm=FrozenBatchNorm2d(8)).double()
    for buffer in plain.norm.buffers():
        buffer.uniform_(0.5, 1.5)
    merged = copy.deepcopy(plain)
    assert merge_frozen_norms(merged) == 1
    return plain, merged


def test_a_merged_convolution_has_the_same_values_and_gradients(pair):
    x = torch.randn(2, 3, 9, 7, dtype=torch.float64)
    results = []
    for conv in pair:
        images = x.clone().requires_grad_()
        output = conv(images)
        (output * torch.arange(output.numel()).view_as(output).cos()).sum().backward()
        results.append((output, images.grad, conv.weight.grad, conv.bias.grad))
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_merged_convolution_keeps_names_and_activation(pair):
    plain, merged = pair
    assert list(plain.state_dict()) == list(merged.state_dict())
    merged.activation = torch.relu
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(merged(x), plain(x).relu())


def test_norms_that_learn_are_left_alone():
    conv = Conv2d(3, 8, 1, norm=torch.nn.BatchNorm2d(8))
    assert merge_frozen_norms(conv) == 0 and type(conv) is Conv2d


@pytest.fixture
def models():
    """A tiny R50 model with frozen norms, plain and prepared."""
    cfg = parity_models.default_config()
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.RESNETS.NORM", "FrozenBN"]
        + ["MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.RES2_OUT_CHANNELS", 16]
        + ["MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.RESNETS.OUT_FEATURES"]
        + [["res2", "res3", "res4", "res5"], "MODEL.META_ARCHITECTURE", "MaskFormer"]
        + ["MODEL.SEM_SEG_HEAD.NAME", "MaskFormerHead", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5]
        + ["MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res2", "res3", "res4", "res5"]]
        + ["MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "MSDeformAttnPixelDecoder"]
        + ["MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "multi_scale_pixel_decoder"]
        + ["MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS", 1, "MODEL.MASK_FORMER.DEC_LAYERS", 3]
        + ["MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 7, "MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 49]
        + ["MODEL.MASK_FORMER.DROPOUT", 0.0]
    )
    torch.manual_seed(0)
    plain = build_model(cfg).double().train()  # float64: no mask is at its threshold by rounding
    for name, parameter in plain.named_parameters():
        if "sampling_offsets.bias" in name:  # they start on pixel centres, where slopes differ
            parameter.data += 0.3 * torch.randn_like(parameter)
    for module in plain.modules():
        if isinstance(module, FrozenBatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(std=0.1)
    fast = prepare_for_training(copy.deepcopy(plain), cfg)
    cfg.MODEL.FAST = False
    slow = prepare_for_training(copy.deepcopy(plain), cfg)
    return plain, fast, slow


def _step(model):
    from detectron2.structures import Instances

    masks = torch.zeros(3, 64, 96, dtype=torch.bool)
    masks[0, :30, :40] = masks[1, 20:, 50:] = masks[2, 10:40, 10:70] = True
    instances = Instances((64, 96), gt_classes=torch.tensor([0, 3, 4]), gt_masks=masks)
    image = torch.arange(3 * 64 * 96).view(3, 64, 96) % 251
    torch.manual_seed(3)
    losses = model([{"image": image, "instances": instances}])
    sum(losses.values()).backward()
    return losses, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_a_step_gives_the_same_losses_and_gradients(models):
    plain, *others = models
    losses, gradients = _step(plain)
    for model in others:
        again, same = _step(model)
        torch.testing.assert_close(again, losses, rtol=1e-9, atol=1e-9)
        assert list(same) == list(gradients)
        norm = torch.stack([g.norm() for g in gradients.values()]).norm()
        apart = torch.stack([(same[n] - g).norm() for n, g in gradients.items()]).norm()
        assert apart / norm < 1e-9


def test_the_prepared_model_is_merged_and_channels_last(models):
    plain, fast, slow = models
    assert any(type(m) is MergedConv2d for m in fast.modules())
    assert not any(type(m) is MergedConv2d for m in slow.modules())
    assert list(fast.state_dict()) == list(plain.state_dict())
    conv = next(m for m in fast.backbone.modules() if type(m) is MergedConv2d)
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_checkpoints_of_both_are_alike(models, tmp_path):
    plain, fast, _ = models
    torch.save(fast.state_dict(), tmp_path / "fast.pth")
    plain.load_state_dict(torch.load(tmp_path / "fast.pth", weights_only=True))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(value, fast.state_dict()[name], rtol=0, atol=0)
