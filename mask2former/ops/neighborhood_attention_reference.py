"""Neighbourhood attention in plain PyTorch: what every fast path is tested against."""

from __future__ import annotations

import torch
from torch import Tensor


def window_starts(length: int, kernel_size: int, dilation: int, device=None) -> Tensor:
    """First neighbour of every position along one axis, int64 ``[length]``.

    Positions that agree modulo ``dilation`` form a class, and attend to each other only. Counted
    within its class, position i has the neighbours i - K // 2 ... i + K // 2, moved inwards at the
    borders so that there are always K. (NAT: Hassani et al., CVPR 2023, section 3.1; DiNAT: Hassani
    and Shi, 2022, section 3.1.)
    """
    position = torch.arange(length, device=device)
    residue, index = position % dilation, position // dilation
    members = (length - residue + dilation - 1) // dilation  # of the position's class
    start = torch.minimum((index - kernel_size // 2).clamp(min=0), members - kernel_size)
    return residue + dilation * start


def neighbourhoods(
    length: int, kernel_size: int, dilation: int, device=None
) -> tuple[Tensor, Tensor]:
    """The neighbours of every position along one axis, and where their bias lies.

    Returns:
        positions and rows of the bias table, both int64 ``[length, K]``. The row is neighbour minus
        query, in steps of the dilation, plus K - 1.
    """
    starts = window_starts(length, kernel_size, dilation, device)
    positions = starts[:, None] + dilation * torch.arange(kernel_size, device=device)
    queries = torch.arange(length, device=device)[:, None]
    return positions, (positions - queries) // dilation + kernel_size - 1


def neighborhood_attention_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    dilation: int,
    scale: float = 1.0,
) -> Tensor:
    """As :func:`mask2former.ops.neighborhood_attention_2d`, less the checks.

    Copies the keys and values of every pixel's window, so it is for small maps. 16-bit tensors are
    computed with in float32 and rounded once, at the end.
    """
    height, width = query.shape[2:4]
    rows, row_bias = neighbourhoods(height, kernel_size, dilation, query.device)  # [H, K]
    columns, column_bias = neighbourhoods(width, kernel_size, dilation, query.device)  # [W, K]
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32

    def windows(maps: Tensor) -> Tensor:  # [B, heads, H, W, D] -> [B, heads, H, W, K, K, D]
        return maps.to(wide)[:, :, rows[:, None, :, None], columns[None, :, None, :]]

    logits = torch.einsum("bhyxd,bhyxijd->bhyxij", query.to(wide) * scale, windows(key))
    if rpb is not None:
        logits = logits + rpb.to(wide)[:, row_bias[:, None, :, None], column_bias[None, :, None, :]]
    weights = logits.flatten(-2).softmax(-1).view(logits.shape)
    return torch.einsum("bhyxij,bhyxijd->bhyxd", weights, windows(value)).to(query.dtype)
