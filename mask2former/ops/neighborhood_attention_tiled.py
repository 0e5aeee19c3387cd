"""Neighbourhood attention in PyTorch without a copy of the keys for every pixel.

Pixels whose rows and columns agree modulo the dilation form a map of their own, in which windows
are dense. That map is cut into tiles of queries; a tile attends to the rectangle of keys that its
windows cover, under a mask with the bias inside the windows and -inf outside. At K = 11 an 8 x 8
tile has 18 x 18 keys: copies of five keys a query, for one strip of tiles at a time, where windows
hold 121 for all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Larger tiles are fewer, but more of the keys of their rectangle lie outside a query's window.
TILE = 8


def neighborhood_attention_tiled(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    dilation: int,
    scale: float = 1.0,
    dropout: float = 0.0,
) -> Tensor:
    """As :func:`mask2former.ops.neighborhood_attention_2d`, less the checks.

    The backward pass computes every strip of tiles again instead of keeping its weights.
    """
    height, width = query.shape[2:4]
    maps = [_by_residue(tensor, dilation) for tensor in (query, key, value)]
    full_rows, full_columns = maps[0].shape[4:6]
    outputs = []
    for row_residues, rows in _residues(height, dilation):
        line = []
        for column_residues, columns in _residues(width, dilation):
            q, k, v = (x[row_residues, column_residues, :, :, :rows, :columns] for x in maps)
            output = _undilated(
                *(x.flatten(0, 2) for x in (q, k, v)), rpb, kernel_size, scale, dropout
            )
            missing = (0, 0, 0, full_columns - columns, 0, full_rows - rows)
            line.append(F.pad(output.unflatten(0, q.shape[:3]), missing))
        outputs.append(torch.cat(line, dim=1))
    output = torch.cat(outputs).permute(2, 3, 4, 0, 5, 1, 6)  # [B, heads, rows, d, columns, d, D]
    return output.flatten(4, 5).flatten(2, 3)[:, :, :height, :width]


def _by_residue(x: Tensor, dilation: int) -> Tensor:
    """``[B, heads, H, W, D] -> [d, d, B, heads, ceil(H / d), ceil(W / d), D]``, zero padded."""
    if x.shape[2] % dilation or x.shape[3] % dilation:
        x = F.pad(x, (0, 0, 0, -x.shape[3] % dilation, 0, -x.shape[2] % dilation))
    x = x.unflatten(3, (-1, dilation)).unflatten(2, (-1, dilation))
    return x.permute(3, 5, 0, 1, 2, 4, 6)


def _residues(length: int, dilation: int) -> list[tuple[slice, int]]:
    """The residues of one axis, grouped by how many positions have them."""
    longer = length % dilation
    groups = [(slice(0, longer), length // dilation + 1)] if longer else []
    return [*groups, (slice(longer, dilation), length // dilation)]


# ------------------------------------------------------------------ tiles of a map without dilation


class Look(NamedTuple):
    """What a tile looks like along one axis, counted from its first key."""

    first_query: int
    starts: tuple[int, ...]  # of the queries' windows
    keys: int


class Run(NamedTuple):
    """Tiles of one axis that follow each other and look the same."""

    look: Look
    queries: range  # where each tile's queries start
    keys: int  # where the first tile's keys start


def _runs(length: int, kernel_size: int) -> list[Run]:
    """The tiles of an axis: usually a few at the borders, and all others as one run."""

    def start(i: int) -> int:
        return min(max(i - kernel_size // 2, 0), length - kernel_size)

    runs: list[Run] = []
    for first in range(0, length, TILE):
        keys = start(first)
        starts = tuple(start(i) - keys for i in range(first, min(first + TILE, length)))
        look = Look(first - keys, starts, starts[-1] + kernel_size)
        if runs and runs[-1].look == look:
            runs[-1] = Run(look, range(runs[-1].queries[0], first + 1, TILE), runs[-1].keys)
        else:
            runs.append(Run(look, range(first, first + 1, TILE), keys))
    return runs


def _undilated(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    scale: float,
    dropout: float,
) -> Tensor:
    height, width = query.shape[2:4]
    columns = _runs(width, kernel_size)
    strips = []
    for row in _runs(height, kernel_size):
        masks = [_mask(row.look, column.look, rpb, kernel_size, query) for column in columns]
        for number, top in enumerate(row.queries):
            keys = row.keys + number * TILE
            q = query[:, :, top : top + len(row.look.starts)]
            k, v = (x[:, :, keys : keys + row.look.keys] for x in (key, value))
            if torch.is_grad_enabled():
                strip = checkpoint(
                    _strip, q, k, v, columns, masks, scale, dropout, use_reentrant=False
                )
            else:
                strip = _strip(q, k, v, columns, masks, scale, dropout)
            strips.append(strip)
    return torch.cat(strips, dim=2)


def _mask(row: Look, column: Look, rpb: Tensor | None, kernel_size: int, like: Tensor) -> Tensor:
    """What is added to the logits of a tile, ``[1, heads or 1, queries, keys]``."""

    def axis(look: Look) -> tuple[Tensor, Tensor]:  # both [queries, keys]
        keys = torch.arange(look.keys, device=like.device)
        starts = torch.tensor(look.starts, device=like.device)[:, None]
        queries = torch.arange(len(look.starts), device=like.device)[:, None] + look.first_query
        inside = (keys >= starts) & (keys < starts + kernel_size)
        return inside, (keys - queries + kernel_size - 1).clamp(0, 2 * kernel_size - 2)

    (rows, row_bias), (columns, column_bias) = axis(row), axis(column)
    inside = rows[:, None, :, None] & columns[None, :, None, :]  # [qy, qx, ky, kx]
    if rpb is None:
        bias = like.new_zeros(1, *inside.shape)
    else:
        bias = rpb[:, row_bias[:, None, :, None], column_bias[None, :, None, :]].to(like.dtype)
    return bias.masked_fill(~inside, float("-inf")).flatten(3, 4).flatten(1, 2)[None]


def _strip(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    columns: list[Run],
    masks: list[Tensor],
    scale: float,
    dropout: float,
) -> Tensor:
    """One row of tiles: queries ``[B, heads, TILE, W, D]``, keys ``[B, heads, keys, W, D]``."""
    outputs = []
    for column, mask in zip(columns, masks):
        count, width = len(column.queries), len(column.look.starts)
        begin, end = column.queries[0], column.queries[-1] + width
        q = query[:, :, :, begin:end].unflatten(3, (count, width)).permute(0, 3, 1, 2, 4, 5)
        span = slice(column.keys, column.keys + (count - 1) * TILE + column.look.keys)
        k, v = (  # [B, count, heads, ky, kx, D]
            x[:, :, :, span].unfold(3, column.look.keys, TILE).permute(0, 3, 1, 2, 5, 4)
            for x in (key, value)
        )
        output = F.scaled_dot_product_attention(
            *(x.flatten(3, 4).flatten(0, 1) for x in (q, k, v)),
            attn_mask=mask,
            dropout_p=dropout,
            scale=scale,
        )
        output = output.view(q.shape)  # [B, count, heads, qy, qx, D]
        outputs.append(output.permute(0, 2, 3, 1, 4, 5).flatten(3, 4))
    return torch.cat(outputs, dim=3)
