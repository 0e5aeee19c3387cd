"""3 x 3 convolutions on the CPU, for inference: calls a compiled kernel with tensors.

Winograd's F(2 x 2, 3 x 3) (Lavin and Gray, CVPR 2016) needs 16 multiplications where a direct
convolution needs 36. Results differ by rounding only, and are no less accurate: sums are shorter.
What calls this keeps its readable form, ``F.conv2d``, and asks :func:`applies` which one to take.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn

from mask2former.ops.implementation import use_kernel
from mask2former.ops.libraries import WINOGRAD, load, torch_blas
from mask2former.ops.token_layers import WIDTH, is_plain, is_plain_call

# On smaller maps, and with fewer channels, transforming costs what multiplying saves.
LEAST_CHANNELS = 128
LEAST_TILES = 2048  # of 2 x 2 pixels


def applies(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether :func:`convolution` can take the place of ``F.conv2d``, and is faster.

    Args:
        x: ``[B, C, H, W]``.
        conv: with its weights; norms and activations of subclasses are not looked at.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not is_plain_call():
        return False
    settings = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups)
    if settings != ((3, 3), (1, 1), (1, 1), (1, 1), 1) or conv.padding_mode != "zeros":
        return False
    tensors = [t for t in (x, conv.weight, conv.bias) if t is not None]
    if not all(is_plain(t) for t in tensors) or x.dim() != 4 or x.shape[1] != conv.in_channels:
        return False
    channels = conv.in_channels, conv.out_channels
    if min(channels) < LEAST_CHANNELS or any(c % WIDTH for c in channels):
        return False
    if len(x) * (-(-x.shape[2] // 2)) * (-(-x.shape[3] // 2)) < LEAST_TILES:
        return False
    return x.is_contiguous(memory_format=torch.channels_last) and use_kernel("cpu", WINOGRAD)


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)`` with 3 x 3 filters.

    Args:
        x: float32 ``[B, C, H, W]``, channels-last.
        weight: ``[K, C, 3, 3]`` of any strides; C and K are multiples of 16.
        bias: ``[K]``.

    Returns:
        ``[B, K, H, W]``, channels-last.
    """
    batch, inputs, height, width = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    size = (batch, len(weight), height, width)
    out = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    sizes = (batch, height, width, inputs, len(weight), *weight.stride())
    load("cpu", WINOGRAD).winograd_cpu_convolution(
        (ctypes.c_int64 * len(sizes))(*sizes),
        x.data_ptr(),
        weight.data_ptr(),
        None if bias is None else bias.contiguous().data_ptr(),
        out.data_ptr(),
        torch_blas(),
        torch.get_num_threads(),
    )
    return out
