"""The transformer of BEiT (Bao et al., ICLR 2022), with global or windowed attention.

Tokens travel as ``[B, H, W, C]`` maps; there is no class token. Parameter names are the published
ones of ViT-Adapter's BEiT.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..swin_blocks import DropPath, Mlp
from .interaction import LayerNorm


class PatchEmbed(nn.Module):
    """Projects patches to tokens, ``[B, in_chans, H, W] -> [B, H / patch, W / patch, C]``."""

    def __init__(self, patch_size: int, in_chans: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Self-attention over the whole map or inside windows, with a bias per relative position.

    Keys have no bias. A map that windows do not fill is padded with zero tokens, which take part in
    the attention, as in the published code.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        windowed: bool,
        window_size: int | None,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        bias_table: bool = True,
    ) -> None:
        """
        Args:
            windowed: attend inside windows; otherwise everywhere.
            window_size: side of the windows, and of the largest map whose relative positions the
                bias table holds. On larger maps of global attention the table is resampled.
            bias_table: whether there is a table at all.
        """
        super().__init__()
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.windowed = windowed
        self.window_size = window_size
        self.attn_drop = attn_drop
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.relative_position_bias_table = None
        if bias_table:
            entries = (2 * window_size - 1) ** 2
            self.relative_position_bias_table = nn.Parameter(torch.zeros(entries, num_heads))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C] -> [B, H, W, C]``."""
        if not self.windowed:
            return self._attend(x)
        height, width = x.shape[1:3]
        windows, shape = _to_windows(x, self.window_size)
        return _from_windows(self._attend(windows), shape)[:, :height, :width]

    def position_bias(self, height: int, width: int) -> Tensor | None:
        """The bias of every pair of tokens of a map, ``[heads, N, N]``."""
        table = self.relative_position_bias_table
        if table is None:
            return None
        side = 2 * self.window_size - 1
        table = table.t().unflatten(1, (side, side))  # [heads, 2s-1, 2s-1]: dy, dx from 1-s to s-1
        wanted = (2 * height - 1, 2 * width - 1)
        if wanted != (side, side):
            table = F.interpolate(
                table[None], size=wanted, mode="bicubic", align_corners=False
            ).squeeze(0)
        # Rows of the table that one query needs lie side by side: windows of the table, reversed
        # since dy = query - key. No index of N * N entries, and one copy.
        views = table.unfold(1, height, 1).unfold(2, width, 1)  # [heads, h, w, h, w]
        return views.flip(3, 4).flatten(3, 4).flatten(1, 2)

    def _attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        qkv = F.linear(x, self.qkv.weight, self._qkv_bias()).flatten(1, 2)
        qkv = qkv.unflatten(-1, (3, self.num_heads, -1))  # [B, N, 3, heads, D]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, N, D]
        bias = self.position_bias(height, width)
        if bias is not None:
            bias = bias.to(q.dtype)[None]
        dropout = self.attn_drop if self.training else 0.0
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, dropout_p=dropout, scale=self.scale
        )
        out = out.transpose(1, 2).flatten(2).unflatten(1, (height, width))
        return self.proj_drop(self.proj(out))

    def _qkv_bias(self) -> Tensor | None:
        if self.q_bias is None:
            return None
        return torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])

    # Published state dicts hold the index of every pair of tokens into the bias table: 79 MB for a
    # window of 56. Here it is neither kept nor read, but still written, so that names agree.
    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.relative_position_bias_table is not None:
            device = "meta" if self.relative_position_bias_table.is_meta else "cpu"
            index = _relative_position_index(self.window_size, device)
            destination[f"{prefix}relative_position_index"] = index

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        state_dict.pop(f"{prefix}relative_position_index", None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after a norm, scaled, inside a residual."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        drop: float,
        drop_path: float,
        init_values: float | None,
        **attention,
    ) -> None:
        """
        Args:
            init_values: of the layer scales ``gamma_1`` and ``gamma_2``; None: there are none.
            attention: the keywords of ``Attention``.
        """
        super().__init__()
        self.gamma_1 = self.gamma_2 = None
        if init_values is not None:
            self.gamma_1 = nn.Parameter(torch.full((dim,), float(init_values)))
            self.gamma_2 = nn.Parameter(torch.full((dim,), float(init_values)))
        self.norm1 = LayerNorm(dim)
        self.attn = Attention(dim, num_heads, proj_drop=drop, **attention)
        self.drop_path = DropPath(drop_path)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, H, W, C] -> [B, H, W, C]``."""
        x = x + self.drop_path(_scaled(self.attn(self.norm1(x)), self.gamma_1))
        return x + self.drop_path(_scaled(self.mlp(self.norm2(x)), self.gamma_2))


@lru_cache(maxsize=2)  # one tensor for all blocks: torch.save writes it once
def _relative_position_index(size: int, device: str) -> Tensor:
    """Row of the bias table for every pair of tokens of a window, int64 ``[N, N]``."""
    position = torch.arange(size, device=device)
    difference = position[:, None] - position + size - 1  # [size, size]
    rows, columns = difference[:, None, :, None], difference[None, :, None, :]
    return (rows * (2 * size - 1) + columns).reshape(size * size, size * size)


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x


def _to_windows(x: Tensor, size: int) -> tuple[Tensor, tuple[int, int, int, int]]:
    """``[B, H, W, C]`` to ``[B * nW, size, size, C]`` and (size, B, rows, columns)."""
    batch, height, width, channels = x.shape
    x = F.pad(x, (0, 0, 0, -width % size, 0, -height % size))
    rows, columns = x.shape[1] // size, x.shape[2] // size
    x = x.view(batch, rows, size, columns, size, channels).transpose(2, 3)
    return x.reshape(-1, size, size, channels), (size, batch, rows, columns)


def _from_windows(windows: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """The inverse of ``_to_windows``, padding included."""
    size, batch, rows, columns = shape
    x = windows.view(batch, rows, columns, size, size, -1).transpose(2, 3)
    return x.reshape(batch, rows * size, columns * size, -1)
