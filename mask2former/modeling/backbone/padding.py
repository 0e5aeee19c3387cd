"""Images of any size for backbones that need multiples of their coarsest stride."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(images: Tensor, divisor: int) -> Tensor:
    """``[B, C, H, W]`` with zeros below and to the right, up to multiples of ``divisor``."""
    height, width = images.shape[-2:]
    if height % divisor == 0 and width % divisor == 0:
        return images
    return F.pad(images, (0, -width % divisor, 0, -height % divisor))


def crop_to_image(feature: Tensor, height: int, width: int, stride: int) -> Tensor:
    """The part of a feature map ``[B, C, h, w]`` that an image of ``height`` x ``width`` covers."""
    return feature[..., : -(-height // stride), : -(-width // stride)]
