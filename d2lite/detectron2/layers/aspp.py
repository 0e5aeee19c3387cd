"""Atrous spatial pyramid pooling (Chen et al., "Rethinking Atrous Convolution", 2017)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy

import fvcore.nn.weight_init as weight_init
import torch
from torch import nn
from torch.nn import functional as F

from detectron2._missing import missing_getattr
from detectron2.layers.batch_norm import get_norm
from detectron2.layers.blocks import DepthwiseSeparableConv2d
from detectron2.layers.wrappers import Conv2d

__all__ = ["ASPP"]


class ASPP(nn.Module):
    """A 1 x 1 convolution, three dilated 3 x 3 ones and pooled context, concatenated, projected."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dilations: Sequence[int],
        *,
        norm: str | Callable,
        activation: Callable[[torch.Tensor], torch.Tensor],
        pool_kernel_size: tuple[int, int] | None = None,
        dropout: float = 0.0,
        use_depthwise_separable_conv: bool = False,
    ) -> None:
        """
        Args:
            dilations: three dilation rates.
            pool_kernel_size: window (height, width) of the context pooling; the input's size must
                be a multiple of it. None pools the whole map, without normalisation after it
                (a 1 x 1 map has no batch statistics).
            dropout: rate after the projection.
        """
        super().__init__()
        if len(dilations) != 3:
            raise AssertionError(f"ASPP expects 3 dilations, got {len(dilations)}")
        self.pool_kernel_size = pool_kernel_size
        self.dropout = dropout
        bias = norm == ""

        def conv(channels: int, kernel_size: int, dilation: int = 1) -> Conv2d:
            layer = Conv2d(
                channels,
                out_channels,
                kernel_size=kernel_size,
                padding=dilation if kernel_size == 3 else 0,
                dilation=dilation,
                bias=bias,
                norm=get_norm(norm, out_channels),
                activation=deepcopy(activation),
            )
            weight_init.c2_xavier_fill(layer)
            return layer

        self.convs = nn.ModuleList([conv(in_channels, 1)])
        for dilation in dilations:
            if use_depthwise_separable_conv:
                self.convs.append(
                    DepthwiseSeparableConv2d(
                        in_channels,
                        out_channels,
                        kernel_size=3,
                        padding=dilation,
                        dilation=dilation,
                        norm1=norm,
                        activation1=deepcopy(activation),
                        norm2=norm,
                        activation2=deepcopy(activation),
                    )
                )
            else:
                self.convs.append(conv(in_channels, 3, dilation))
        if pool_kernel_size is None:
            context = Conv2d(
                in_channels, out_channels, 1, bias=True, activation=deepcopy(activation)
            )
            weight_init.c2_xavier_fill(context)
            self.convs.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), context))
        else:
            pool = nn.AvgPool2d(kernel_size=pool_kernel_size, stride=1)
            self.convs.append(nn.Sequential(pool, conv(in_channels, 1)))
        self.project = conv(5 * out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C_in, H, W] -> [N, C_out, H, W]

        Raises:
            ValueError: the size is no multiple of ``pool_kernel_size``.
        """
        size = x.shape[-2:]
        window = self.pool_kernel_size
        if window is not None and (size[0] % window[0] or size[1] % window[1]):
            raise ValueError(
                f"ASPP: the input size {tuple(size)} must be divisible by pool_kernel_size {window}"
            )
        branches = [conv(x) for conv in self.convs]
        branches[-1] = F.interpolate(branches[-1], size=size, mode="bilinear", align_corners=False)
        out = self.project(torch.cat(branches, dim=1))
        return F.dropout(out, self.dropout, training=self.training) if self.dropout > 0 else out


__getattr__ = missing_getattr(__name__)
