"""Neighbourhood attention through PyTorch's FlexAttention, with the bias as ``score_mod``.

For NVIDIA GPUs, where Triton turns it into one kernel on tensor cores; elsewhere, or for tests,
FlexAttention computes all pairs of pixels, which is right but only bearable on small maps.

Pixels are put in an order in which those of one class (equal modulo the dilation) and of one tile
stand together, so that whole blocks of pairs can be skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

# Queries and keys of a block that is computed or skipped as a whole: FlexAttention's default.
BLOCK = 128
TILE = (8, 16)


@dataclass(frozen=True)
class Order:
    """Where pixels stand in the sequence, int64 ``[H * W]`` each but ``place``."""

    pixel: Tensor  # of each place in the sequence
    place: Tensor  # of each pixel
    row: Tensor  # by place
    column: Tensor
    first_row: Tensor  # of the window
    first_column: Tensor


@lru_cache(maxsize=64)
def _order(height: int, width: int, kernel_size: int, dilation: int, device: torch.device) -> Order:
    from mask2former.ops.neighborhood_attention_reference import window_starts

    y, x = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    y, x = y.flatten(), x.flatten()
    tile_y, tile_x = y // dilation // TILE[0], x // dilation // TILE[1]
    key = y % dilation
    for number, size in (
        (x % dilation, dilation),
        (tile_y, height),
        (tile_x, width),
        (y // dilation % TILE[0], TILE[0]),
        (x // dilation % TILE[1], TILE[1]),
    ):
        key = key * size + number
    pixel = key.argsort()
    row, column = y[pixel], x[pixel]
    return Order(
        pixel,
        pixel.argsort(),
        row,
        column,
        window_starts(height, kernel_size, dilation, device)[row],
        window_starts(width, kernel_size, dilation, device)[column],
    )


@lru_cache(maxsize=64)
def _block_mask(
    height: int, width: int, kernel_size: int, dilation: int, device: torch.device
) -> object:
    """Which blocks of queries and keys have a pair inside a window, and the exact test in them."""
    from torch.nn.attention.flex_attention import BlockMask

    order = _order(height, width, kernel_size, dilation, device)
    row, column, first_row, first_column = (
        order.row,
        order.column,
        order.first_row,
        order.first_column,
    )
    reach = kernel_size * dilation

    def inside(batch, head, query, key):
        down, right = row[key] - first_row[query], column[key] - first_column[query]
        in_rows = (down >= 0) & (down < reach) & (down % dilation == 0)
        return in_rows & (right >= 0) & (right < reach) & (right % dilation == 0)

    tokens = height * width
    blocks = -(-tokens // BLOCK)
    last = torch.arange(blocks * BLOCK, device=device).clamp(max=tokens - 1)

    def extent(numbers: Tensor) -> tuple[Tensor, Tensor]:
        return numbers[last].view(blocks, BLOCK).aminmax(dim=1)

    needed = torch.ones(blocks, blocks, dtype=torch.bool, device=device)
    for position, first in ((row, first_row), (column, first_column)):
        (low, high), (begin, end) = extent(position), extent(first)
        needed &= (high >= begin[:, None]) & (low < end[:, None] + reach)
    count = needed.sum(1, dtype=torch.int32)
    indices = needed.int().argsort(dim=1, descending=True, stable=True).int()
    return BlockMask.from_kv_blocks(
        count[None, None],
        indices[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=inside,
        seq_lengths=(tokens, tokens),
    )


@lru_cache(maxsize=1)
def _compiled():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def neighborhood_attention_flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    dilation: int,
    scale: float = 1.0,
) -> Tensor:
    """As :func:`mask2former.ops.neighborhood_attention_2d`, less the checks."""
    from torch.nn.attention.flex_attention import flex_attention

    height, width = query.shape[2:4]
    where = (height, width, kernel_size, dilation, query.device)
    order = _order(*where)
    row, column, side = order.row, order.column, kernel_size - 1

    def add_bias(score, batch, head, q, k):
        down, right = (row[k] - row[q]) // dilation, (column[k] - column[q]) // dilation
        # Outside of the window, where the mask will hide it, the index is only kept in the table.
        down, right = down.clamp(-side, side) + side, right.clamp(-side, side) + side
        return score + rpb[head, down, right]

    run = _compiled() if query.device.type == "cuda" else flex_attention
    output = run(
        *(x.flatten(2, 3)[:, :, order.pixel] for x in (query, key, value)),
        score_mod=None if rpb is None else add_bias,
        block_mask=_block_mask(*where),
        scale=scale,
    )
    return output[:, :, order.place].unflatten(2, (height, width))
