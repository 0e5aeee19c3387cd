"""Winograd's convolution on the CPU against a direct one in float64."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detectron2.layers import get_norm
from mask2former.modeling.pixel_decoder.fpn import output_conv
from mask2former.ops import libraries, use_implementation, winograd


@pytest.fixture
def packing(request, monkeypatch):
    """With MKL's packing of weights, or as where torch has no MKL."""
    if request.param == "packed":
        return
    blas = libraries.torch_blas()
    without = type(blas)(blas[0], None, None, None)
    monkeypatch.setattr(winograd, "torch_blas", lambda: without)


def channels_last(*size: int) -> torch.Tensor:
    return torch.randn(size).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("packing", ["packed", "plain"], indirect=True)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "size",
    [(1, 16, 2, 2), (1, 16, 1, 1), (2, 32, 7, 9), (1, 48, 8, 1), (3, 16, 1, 6), (1, 64, 33, 40)],
    ids=str,
)
def test_equals_a_direct_convolution(size, bias, packing):
    torch.manual_seed(0)
    x, weight = channels_last(*size), torch.randn(32, size[1], 3, 3)
    bias = torch.randn(32) if bias else None
    with torch.no_grad():
        found = winograd.convolution(x, weight, bias)
        also = winograd.convolution(x, weight.to(memory_format=torch.channels_last), bias)
    wanted = F.conv2d(
        x.double(), weight.double(), None if bias is None else bias.double(), padding=1
    )
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found, also)
    direct = (F.conv2d(x, weight, bias, padding=1) - wanted).abs().max()
    assert (found - wanted).abs().max() <= max(4 * direct, 1e-5)


def test_every_instruction_set_and_number_of_threads_agree():
    torch.manual_seed(0)
    x, weight, bias = channels_last(2, 48, 13, 10), torch.randn(16, 48, 3, 3), torch.randn(16)
    library = libraries.load("cpu", libraries.WINOGRAD)
    wanted = F.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    threads, best = torch.get_num_threads(), library.mask2former_cpu_instruction_set(-1)
    try:
        for level in range(best + 1):
            assert library.mask2former_cpu_instruction_set(level) == level
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                found = winograd.convolution(x, weight, bias)
                torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-4)
    finally:
        torch.set_num_threads(threads)
        library.mask2former_cpu_instruction_set(-1)


def test_no_images_and_not_a_number():
    weight = torch.randn(16, 16, 3, 3)
    assert winograd.convolution(channels_last(0, 16, 4, 4), weight, None).shape == (0, 16, 4, 4)
    x = channels_last(1, 16, 8, 8)
    x[0, 3, 4, 4] = torch.nan
    found = winograd.convolution(x, weight, None).isnan()
    assert found[..., 3:6, 3:6].all()  # wherever a direct convolution has one
    assert not found[..., :2, :].any()


def made_for(channels: int, **options) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, **options).eval()


@torch.no_grad()
def test_applies_where_it_pays():
    x, conv = channels_last(1, 128, 128, 64), made_for(128)
    assert winograd.applies(x, conv)
    with use_implementation("reference"):
        assert not winograd.applies(x, conv)
    assert not winograd.applies(x[:, :, :64].contiguous(memory_format=torch.channels_last), conv)
    assert not winograd.applies(x.contiguous(), conv)
    assert not winograd.applies(x.double(), copy.deepcopy(conv).double())
    assert not winograd.applies(x, nn.Conv2d(128, 128, 3, padding=1, stride=2))
    assert not winograd.applies(x, nn.Conv2d(128, 128, 3, padding=2, dilation=2))
    assert not winograd.applies(x, nn.Conv2d(128, 128, 1))
    assert not winograd.applies(x, made_for(128, groups=2))
    assert not winograd.applies(x, made_for(128, padding_mode="reflect"))
    assert not winograd.applies(channels_last(1, 64, 128, 128), made_for(64))
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.applies(x, conv)
    with torch.enable_grad():
        assert not winograd.applies(x, conv)
    # Too few channels for the input is an error, as ever, not a read beyond the end.
    assert not winograd.applies(channels_last(1, 144, 128, 64), conv)


@pytest.mark.parametrize("norm", ["GN", "", "BN"])
def test_the_pyramid_uses_it_at_inference_only(norm, monkeypatch):
    torch.manual_seed(0)
    conv = output_conv(128, 128, norm).eval()
    if norm == "BN":
        assert isinstance(conv.norm, type(get_norm("BN", 1)))
    calls = []
    convolution = winograd.convolution
    monkeypatch.setattr(
        winograd, "convolution", lambda *args: calls.append(1) or convolution(*args)
    )
    x = channels_last(1, 128, 96, 96)
    with torch.no_grad():
        found = conv(x)
        with use_implementation("reference"):
            wanted = conv(x)
    assert len(calls) == 1
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(conv(x), wanted)  # with gradients
    with torch.no_grad():
        conv.train()(x)
    assert len(calls) == 1


def test_without_the_library_the_convolution_is_direct(monkeypatch, caplog):
    monkeypatch.setattr(winograd, "use_kernel", lambda *_: False)
    with torch.no_grad():
        assert not winograd.applies(channels_last(1, 128, 128, 64), made_for(128))
