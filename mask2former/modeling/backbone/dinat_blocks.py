"""The parts of DiNAT: neighbourhood attention, block, convolutional tokenizer and downsampler.

Dilated Neighborhood Attention Transformer (Hassani and Shi, 2022), built on Neighborhood Attention
Transformer (Hassani et al., CVPR 2023). Tokens travel as ``[B, H, W, C]`` maps. Parameter names are
those of the published code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.ops import neighborhood_attention_2d

from ..errors import BackboneError
from .swin_blocks import DropPath, Mlp


class NeighborhoodAttention2D(nn.Module):
    """Multi-head attention of every pixel to a window around it, with relative position bias.

    The same constructor and parameters as natten's module of that name up to 0.17, which newer
    versions of natten no longer have with a bias.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        kernel_size: int,
        dilation: int = 1,
        bias: bool = True,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        """
        Args:
            dim: channels; a multiple of ``num_heads``.
            kernel_size: side of the window in pixels, odd.
            dilation: steps between the pixels of a window.
            bias: whether there is a relative position bias (``rpb``).
            qk_scale: replaces ``(dim / num_heads) ** -0.5``.
        """
        super().__init__()
        if dim % num_heads:
            raise BackboneError(
                f"dim ({dim}) must be divisible by num_heads ({num_heads}); see "
                "MODEL.DINAT.EMBED_DIM (doubled from stage to stage) and MODEL.DINAT.NUM_HEADS"
            )
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise BackboneError(
                f"MODEL.DINAT.KERNEL_SIZE (kernel_size) must be odd and positive, got {kernel_size}"
            )
        if dilation < 1:
            raise BackboneError(
                f"MODEL.DINAT.DILATIONS (dilation) must be at least 1, got {dilation}"
            )
        self.num_heads = num_heads
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.attn_drop = attn_drop
        self.rpb = None
        if bias:
            side = 2 * kernel_size - 1
            self.rpb = nn.Parameter(torch.zeros(num_heads, side, side))
            nn.init.trunc_normal_(self.rpb, std=0.02)
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C] -> [B, H, W, C]``.

        Maps smaller than the dilated window are padded to it, at the right and at the bottom, with
        zeros that take part in the attention, as published.
        """
        height, width = x.shape[1:3]
        side = self.kernel_size * self.dilation
        if height < side or width < side:
            x = F.pad(x, (0, 0, 0, max(0, side - width), 0, max(0, side - height)))
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # [B, H, W, 3, heads, D]
        q, k, v = qkv.permute(3, 0, 4, 1, 2, 5)  # each [B, heads, H, W, D]
        x = neighborhood_attention_2d(
            q,
            k,
            v,
            self.rpb,
            self.kernel_size,
            self.dilation,
            scale=self.scale,
            dropout=self.attn_drop if self.training else 0.0,
        )
        x = x.permute(0, 2, 3, 1, 4).flatten(3)[:, :height, :width]  # [B, H, W, C]
        return self.proj_drop(self.proj(x))

    def extra_repr(self) -> str:
        return (
            f"num_heads={self.num_heads}, kernel_size={self.kernel_size}, dilation={self.dilation}"
        )


class NATLayer(nn.Module):
    """Neighbourhood attention and a two-layer perceptron, each after a norm, inside a residual."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        kernel_size: int = 7,
        dilation: int = 1,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
    ) -> None:
        """
        Args:
            layer_scale: initial value of a learned factor per channel on both residual branches
                (CaiT, Touvron et al., 2021), as in DiNAT-Small and -Base; None: no factor.
        """
        super().__init__()
        self.gamma1 = self.gamma2 = None
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(layer_scale * torch.ones(dim))
            self.gamma2 = nn.Parameter(layer_scale * torch.ones(dim))
        self.norm1 = nn.LayerNorm(dim)
        self.attn = NeighborhoodAttention2D(
            dim,
            num_heads,
            kernel_size,
            dilation,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            proj_drop=drop,
        )
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C] -> [B, H, W, C]``."""
        x = x + self.drop_path(_scaled(self.attn(self.norm1(x)), self.gamma1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.gamma2))


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else x * gamma


class ConvTokenizer(nn.Module):
    """Two 3 x 3 convolutions of stride 2, ``[B, in_chans, H, W] -> [B, H / 4, W / 4, C]``."""

    def __init__(self, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, embed_dim // 2, kernel_size=3, stride=2, padding=1),
            nn.Conv2d(embed_dim // 2, embed_dim, kernel_size=3, stride=2, padding=1),
        )
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class ConvDownsampler(nn.Module):
    """A 3 x 3 convolution of stride 2, ``[B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), 2 C]``."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Conv2d(dim, 2 * dim, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = nn.LayerNorm(2 * dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.reduction(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
