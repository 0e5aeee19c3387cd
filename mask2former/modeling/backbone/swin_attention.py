"""Attention inside the windows of a Swin Transformer (Liu et al., ICCV 2021, section 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.ops import wants_reference


class WindowAttention(nn.Module):
    """Multi-head self-attention inside windows, with a learned bias per relative position."""

    def __init__(
        self,
        dim: int,
        window_size: tuple[int, int],
        num_heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        """
        Args:
            dim: channels; a multiple of ``num_heads``.
            window_size: (height, width) of a window in tokens.
            qk_scale: replaces ``(dim / num_heads) ** -0.5``.
        """
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim ({dim}) must be divisible by num_heads ({num_heads})")
        self.window_size = window_size
        self.num_heads = num_heads
        self.scale = qk_scale or (dim // num_heads) ** -0.5
        self.attn_drop = attn_drop

        height, width = window_size
        self.relative_position_bias_table = nn.Parameter(
            torch.zeros((2 * height - 1) * (2 * width - 1), num_heads)
        )
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _relative_position_index(height, width))
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """
        Args:
            x: ``[B * nW, N, C]``, the windows of one image one after another.
            mask: ``[nW, N, N]``, added to the attention logits; see ``shifted_window_mask``.

        Returns:
            ``[B * nW, N, C]``.
        """
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # [B*nW, N, 3, heads, D]
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each [B*nW, heads, N, D]
        bias = self.position_bias()[None]  # [1, heads, N, N]
        if mask is not None:
            bias = bias + mask[:, None].to(bias.dtype)  # [nW, heads, N, N]
            if len(x) != len(mask):  # more, or an empty batch
                bias = bias.repeat(len(x) // len(mask), 1, 1, 1)
        dropout = self.attn_drop if self.training else 0.0
        x = biased_attention(q, k, v, bias, dropout, self.scale)
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))

    def position_bias(self) -> Tensor:
        """The bias of every pair of tokens, ``[heads, N, N]``."""
        tokens = self.window_size[0] * self.window_size[1]
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        return bias.view(tokens, tokens, -1).permute(2, 0, 1).contiguous()


def biased_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, dropout: float, scale: float
) -> Tensor:
    """``scaled_dot_product_attention`` with a bias that may want a gradient.

    For such a bias PyTorch has no fused kernel on a CPU. What it does instead scales queries and
    keys, and looks for rows that are wholly masked, which windows do not have.

    Args:
        q, k, v: ``[B, heads, N, D]``.
        bias: broadcastable to ``[B, heads, N, N]``, without rows of -inf.
        dropout: share of attention weights that are dropped.

    Returns:
        ``[B, heads, N, D]``.
    """
    # (torch.jit.trace checks a trace without gradients, which must be the same graph.)
    learns = torch.is_grad_enabled() and bias.requires_grad and not torch.jit.is_tracing()
    if q.device.type != "cpu" or not learns or wants_reference():
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias, dropout_p=dropout, scale=scale
        )
    logits = (q * scale) @ k.transpose(-1, -2)
    logits += bias
    return F.dropout(logits.softmax(-1), dropout) @ v


def _relative_position_index(height: int, width: int) -> Tensor:
    """Row of the bias table for every pair of tokens, int64 ``[N, N]``."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    y, x = y.flatten(), x.flatten()
    dy = y[:, None] - y[None, :] + height - 1  # [N, N], 0 ... 2 * height - 2
    dx = x[:, None] - x[None, :] + width - 1
    return dy * (2 * width - 1) + dx
