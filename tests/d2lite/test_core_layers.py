"""Layers: normalisations, wrappers, blocks and mask operations."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from detectron2.layers import (
    ASPP,
    CNNBlockBase,
    Conv2d,
    DeformConv,
    DepthwiseSeparableConv2d,
    FrozenBatchNorm2d,
    ModulatedDeformConv,
    NaiveSyncBatchNorm,
    ROIAlign,
    ShapeSpec,
    batched_nms,
    cat,
    cross_entropy,
    get_norm,
    nonzero_tuple,
    paste_masks_in_image,
    shapes_to_tensor,
)


def filled(norm: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(norm, name).data.copy_(torch.rand(norm.num_features, generator=generator) + 0.5)
    return norm


# -- normalisation ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("BN", nn.BatchNorm2d),
        ("FrozenBN", FrozenBatchNorm2d),
        ("naiveSyncBN", NaiveSyncBatchNorm),
        ("naiveSyncBN_N", NaiveSyncBatchNorm),
    ],
)
def test_get_norm_by_name(name, kind):
    assert isinstance(get_norm(name, 8), kind)


@pytest.mark.parametrize("name", ["SyncBN", "nnSyncBN"])
def test_synchronised_norm_has_the_parameters_of_a_batch_norm(name):
    norm = get_norm(name, 8)
    assert {k: v.shape for k, v in norm.state_dict().items()} == {
        k: v.shape for k, v in nn.BatchNorm2d(8).state_dict().items()
    }


def test_get_norm_builds_group_norm_of_32_groups():
    norm = get_norm("GN", 64)
    assert (norm.num_groups, norm.num_channels) == (32, 64)


@pytest.mark.parametrize("nothing", [None, ""])
def test_get_norm_of_nothing_is_none(nothing):
    assert get_norm(nothing, 8) is None


def test_get_norm_takes_callables_and_refuses_unknown_names():
    assert get_norm(lambda channels: channels + 1, 8) == 9
    with pytest.raises(KeyError):
        get_norm("XYZ", 8)


def test_layer_norm_works_on_the_channel_axis():
    norm = get_norm("LN", 6)
    x = torch.randn(2, 6, 3, 4)
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (6,), eps=1e-6).permute(0, 3, 1, 2)
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_frozen_batch_norm_equals_batch_norm_in_evaluation(requires_grad):
    plain = filled(nn.BatchNorm2d(5)).eval()
    frozen = FrozenBatchNorm2d.convert_frozen_batchnorm(plain)
    x = torch.randn(2, 5, 3, 4, requires_grad=requires_grad)
    torch.testing.assert_close(frozen(x), plain(x))


def test_fresh_frozen_batch_norm_is_the_identity_without_parameters():
    frozen = FrozenBatchNorm2d(4)
    x = torch.randn(1, 4, 2, 2)
    torch.testing.assert_close(frozen(x), x)
    assert list(frozen.parameters()) == []
    assert sorted(frozen.state_dict()) == ["bias", "running_mean", "running_var", "weight"]


@pytest.mark.parametrize("requires_grad", [False, True])
def test_frozen_batch_norm_keeps_half_precision(requires_grad):
    x = torch.randn(1, 4, 2, 2, dtype=torch.bfloat16, requires_grad=requires_grad)
    assert FrozenBatchNorm2d(4)(x).dtype == torch.bfloat16


def test_frozen_batch_norm_fills_statistics_of_unversioned_checkpoints():
    frozen = FrozenBatchNorm2d(2)
    frozen.load_state_dict({"weight": torch.ones(2) * 3, "bias": torch.zeros(2)})
    assert frozen.running_mean.tolist() == [0, 0]
    assert frozen.running_var.tolist() == [1, 1]


def test_frozen_batch_norm_reports_missing_statistics_of_versioned_checkpoints():
    state = FrozenBatchNorm2d(2).state_dict()
    del state["running_mean"]
    assert state._metadata[""]["version"] == 3
    with pytest.raises(RuntimeError, match="running_mean"):
        FrozenBatchNorm2d(2).load_state_dict(state)


def test_conversion_reaches_nested_layers_and_back():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4)), nn.SyncBatchNorm(4))
    assert FrozenBatchNorm2d.convert_frozen_batchnorm(net) is net
    assert isinstance(net[1][0], FrozenBatchNorm2d) and isinstance(net[2], FrozenBatchNorm2d)
    FrozenBatchNorm2d.convert_frozenbatchnorm2d_to_batchnorm2d(net)
    assert isinstance(net[1][0], nn.BatchNorm2d)


def test_naive_sync_norm_is_batch_norm_on_one_process():
    x = torch.randn(4, 3, 2, 2)
    torch.testing.assert_close(NaiveSyncBatchNorm(3)(x), nn.BatchNorm2d(3)(x))


# -- wrappers and blocks ---------------------------------------------------------------------


def test_conv_applies_norm_then_activation():
    conv = Conv2d(3, 4, 1, bias=False, norm=filled(FrozenBatchNorm2d(4)), activation=F.relu)
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(conv(x), F.relu(conv.norm(F.conv2d(x, conv.weight))))
    assert [name for name, _ in conv.named_parameters()] == ["weight"]
    assert "norm.running_mean" in conv.state_dict()


def test_conv_without_extras_is_a_convolution():
    conv = Conv2d(3, 4, 3, padding=1)
    assert sorted(conv.state_dict()) == ["bias", "weight"]
    assert conv(torch.zeros(0, 3, 5, 5)).shape == (0, 4, 5, 5)


def test_cross_entropy_of_nothing_is_zero_with_a_gradient():
    logits = torch.zeros(0, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and logits.grad.shape == (0, 3)


def test_cross_entropy_is_torchs_otherwise():
    logits, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    assert cross_entropy(logits, target) == F.cross_entropy(logits, target)


def test_small_wrappers():
    x = torch.tensor([[0, 1], [2, 0]])
    assert [i.tolist() for i in nonzero_tuple(x)] == [[0, 1], [1, 0]]
    assert cat([x]) is x and cat([x, x], dim=1).shape == (2, 4)
    assert shapes_to_tensor([3, 4]).tolist() == [3, 4]
    assert ShapeSpec(stride=4) == ShapeSpec(None, None, None, 4)


def test_freezing_a_block_freezes_norms_and_parameters():
    class Block(CNNBlockBase):
        def __init__(self):
            super().__init__(3, 4, 2)
            self.conv = Conv2d(3, 4, 1, norm=nn.BatchNorm2d(4))

    block = Block()
    assert block.freeze() is block
    assert (block.in_channels, block.out_channels, block.stride) == (3, 4, 2)
    assert isinstance(block.conv.norm, FrozenBatchNorm2d)
    assert not any(p.requires_grad for p in block.parameters())


def test_separable_convolution_and_aspp_keep_the_size():
    x = torch.randn(2, 4, 8, 8)
    assert DepthwiseSeparableConv2d(4, 6, norm1="BN", norm2="BN")(x).shape == (2, 6, 8, 8)
    aspp = ASPP(4, 6, [1, 2, 3], norm="", activation=F.relu, dropout=0.1)
    assert aspp(x).shape == (2, 6, 8, 8)
    pooled = ASPP(4, 6, [1, 2, 3], norm="BN", activation=F.relu, pool_kernel_size=(8, 8))
    assert pooled(x).shape == (2, 6, 8, 8)
    with pytest.raises(ValueError, match="divisible"):
        pooled(torch.randn(1, 4, 9, 8))


def test_deformable_convolution_without_offsets_is_a_convolution():
    x = torch.randn(1, 4, 6, 6)
    conv = DeformConv(4, 4, 3, padding=1)
    torch.testing.assert_close(
        conv(x, torch.zeros(1, 18, 6, 6)), F.conv2d(x, conv.weight, padding=1)
    )
    modulated = ModulatedDeformConv(4, 4, 3, padding=1)
    out = modulated(x, torch.zeros(1, 18, 6, 6), torch.zeros(1, 9, 6, 6))
    torch.testing.assert_close(out, torch.zeros_like(out))


# -- boxes and masks -------------------------------------------------------------------------


def test_nms_acts_within_a_class():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4]])
    kept = batched_nms(boxes, torch.tensor([0.1, 0.9, 0.5]), torch.tensor([0, 0, 1]), 0.5)
    assert kept.tolist() == [1, 2]


def test_roi_align_of_a_constant_is_that_constant():
    pooled = ROIAlign((2, 2), 1.0, 0)(
        torch.full((1, 1, 8, 8), 3.0), torch.tensor([[0, 1.0, 1, 5, 5]])
    )
    assert pooled.tolist() == [[[[3, 3], [3, 3]]]]


def test_masks_are_pasted_into_their_boxes():
    boxes = torch.tensor([[1.0, 2, 3, 6], [0, 0, 1, 1]])
    pasted = paste_masks_in_image(torch.ones(2, 4, 4), boxes, (7, 5))
    assert pasted.dtype == torch.bool and pasted.shape == (2, 7, 5)
    assert torch.where(pasted[0].any(1))[0].tolist() == [2, 3, 4, 5]
    assert torch.where(pasted[0].any(0))[0].tolist() == [1, 2]
    assert pasted[1].sum() == 1
    soft = paste_masks_in_image(torch.ones(1, 4, 4) * 0.5, boxes[:1], (7, 5), threshold=-1)
    assert soft.dtype == torch.uint8 and soft.max() == 127
    assert paste_masks_in_image(torch.ones(0, 4, 4), boxes[:0], (7, 5)).shape == (0, 7, 5)
