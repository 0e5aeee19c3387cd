"""The transformer of BEiT (Bao et al., ICLR 2022), with global or windowed attention.

Tokens travel as ``[B, H, W, C]`` maps; there is no class token. Parameter names are the published
ones of ViT-Adapter's BEiT.
"""

from __future__ import annotations

import math
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

    Keys have no bias. Where windows do not fill the map, the published code pads it with zero
    tokens, which take part in the attention. All of these have the key 0 and the value ``v_bias``,
    so here they are one more key, whose logit is the log of their summed exponentials: the same
    output without a single padded token.
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
            window_size: side of the windows, and of the map whose relative positions the bias table
                holds. For other maps of global attention the table is resampled.
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
        qkv = F.linear(x, self.qkv.weight, self._qkv_bias())  # [B, H, W, 3C]
        if self.windowed:
            # At most four kinds of window: whole ones, and those cut by the right or lower border.
            rows, columns = (_spans(side, self.window_size) for side in x.shape[1:3])
            bands = [
                [self._attend_in_windows(qkv[:, r0:r1, c0:c1]) for c0, c1 in columns]
                for r0, r1 in rows
            ]
            out = torch.cat([torch.cat(band, dim=2) for band in bands], dim=1)
        else:
            out = self._attend(qkv)
        return self.proj_drop(self.proj(out))

    def position_bias(self, height: int, width: int) -> Tensor:
        """The bias of every pair of tokens of a window or map, ``[heads, N, N]``."""
        side = 2 * self.window_size - 1
        table = self._table()
        wanted = (2 * height - 1, 2 * width - 1)
        if self.windowed:
            # A cut window lies in the upper left corner of a whole one: smaller distances only.
            top, left = self.window_size - height, self.window_size - width
            table = table[:, top : top + wanted[0], left : left + wanted[1]]
        elif wanted != (side, side):
            table = F.interpolate(table[None], size=wanted, mode="bicubic")[0]
        # Rows of the table that one query needs lie side by side: windows of the table, reversed
        # since dy = query - key. No index of N * N entries, and one copy.
        views = table.unfold(1, height, 1).unfold(2, width, 1)  # [heads, h, w, h, w]
        return views.flip(3, 4).flatten(3, 4).flatten(1, 2)

    def padding_logit(self, height: int, width: int) -> Tensor:
        """log of the sum of exp(bias) over the padding of a cut window, ``[heads, N, 1]``."""
        size = self.window_size
        table = self._table()
        peak = table.amax((1, 2), keepdim=True).detach()
        mass = (table - peak).exp()  # sums of positive numbers, no differences
        # Query (y, x), keys below the cut: dy from y - size + 1 to y - height, all dx. Then keys
        # beside it: the rows of the cut window, dx from x - size + 1 to x - width.
        below = _sums(mass, size - height, size)[:, :height, :width]
        beside = _sums(mass, height, size - width)[:, size - height : size, :width]
        return (peak + (below + beside).log()).flatten(1)[..., None]

    def _table(self) -> Tensor:
        """``[heads, 2s - 1, 2s - 1]``: dy and dx of query minus key, from 1 - s to s - 1."""
        side = 2 * self.window_size - 1
        return self.relative_position_bias_table.t().unflatten(1, (side, side))

    def _attend_in_windows(self, qkv: Tensor) -> Tensor:
        """A region of equal windows, ``[B, H, W, 3C] -> [B, H, W, C]``."""
        batch, height, width, channels = qkv.shape
        h, w = min(height, self.window_size), min(width, self.window_size)
        rows, columns = height // h, width // w
        windows = qkv.reshape(batch, rows, h, columns, w, channels).transpose(2, 3)
        out = self._attend(windows.reshape(-1, h, w, channels))
        out = out.view(batch, rows, columns, h, w, channels // 3).transpose(2, 3)
        return out.reshape(batch, height, width, channels // 3)

    def _attend(self, qkv: Tensor) -> Tensor:
        """``[B, h, w, 3C] -> [B, h, w, C]``, every token with every other."""
        height, width = qkv.shape[1:3]
        qkv = qkv.flatten(1, 2).unflatten(-1, (3, self.num_heads, -1))  # [B, N, 3, heads, D]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B, heads, N, D]
        bias = None
        if self.relative_position_bias_table is not None:
            bias = self.position_bias(height, width)
        missing = self.window_size**2 - height * width if self.windowed else 0
        if missing:
            k, v, bias = self._with_padding(k, v, bias, height, width, missing)
        dropout = self.attn_drop if self.training else 0.0
        out = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=None if bias is None else bias.to(q.dtype)[None],
            dropout_p=dropout,
            scale=self.scale,
        )
        return out.transpose(1, 2).flatten(2).unflatten(1, (height, width))

    def _with_padding(
        self, k: Tensor, v: Tensor, bias: Tensor | None, height: int, width: int, missing: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values ``[B, heads, N + 1, D]`` and bias ``[heads, N, N + 1]`` with the padding."""
        value = k.new_zeros(1, self.num_heads, 1, k.shape[-1])
        k = torch.cat([k, value.expand(len(k), -1, -1, -1)], dim=2)
        if self.v_bias is not None:
            value = self.v_bias.to(v.dtype).view(1, self.num_heads, 1, -1)
        v = torch.cat([v, value.expand(len(v), -1, -1, -1)], dim=2)
        tokens = height * width
        if bias is None:
            padding = k.new_full((self.num_heads, tokens, 1), math.log(missing))
            bias = k.new_zeros(self.num_heads, tokens, tokens)
        else:
            padding = self.padding_logit(height, width)
        return k, v, torch.cat([bias, padding], dim=2)

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


def _spans(length: int, size: int) -> list[tuple[int, int]]:
    """The part of a side that whole windows fill, and the rest; those that are not empty."""
    whole = length - length % size
    return [(a, b) for a, b in ((0, whole), (whole, length)) if a < b]


def _sums(mass: Tensor, height: int, width: int) -> Tensor:
    """Sums over all boxes of a size, ``[C, H, W] -> [C, H - height + 1, W - width + 1]``."""
    if height == 0 or width == 0:
        rows, columns = mass.shape[1] - height + 1, mass.shape[2] - width + 1
        return mass.new_zeros(len(mass), rows, columns)
    columns = F.avg_pool2d(mass, (height, 1), stride=1)
    return F.avg_pool2d(columns, (1, width), stride=1) * (height * width)
