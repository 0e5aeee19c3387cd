"""Multi-scale deformable attention in plain PyTorch: what the kernels are tested against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def ms_deform_attn_reference(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Weighted sum of bilinear samples, level by level, through ``grid_sample``.

    Deformable DETR (Zhu et al., 2021), equation 3 without the projections. Same arguments as
    :func:`mask2former.ops.ms_deform_attn` less the level starts; nothing is checked here. 16-bit
    values are sampled and summed in float32 and rounded once, at the end.

    Args:
        value: ``[B, S, H, D]``, the levels one after another, each row by row.
        spatial_shapes: ``(height, width)`` of every level, ints.
        sampling_locations: ``[B, Q, H, L, P, 2]`` as (x, y); 0 and 1 are the edges of the map.
        attention_weights: ``[B, Q, H, L, P]``.

    Returns:
        ``[B, Q, H*D]`` in the dtype of ``value``.
    """
    batch, _, heads, depth = value.shape
    queries, levels, points = sampling_locations.shape[1], *sampling_locations.shape[3:5]
    wide = torch.float64 if value.dtype == torch.float64 else torch.float32
    # Every location beyond [-0.5, 1.5] misses a map of any size. Moving it to -1 or 2 changes no
    # number and keeps huge and non-finite locations from turning into NaN inside grid_sample.
    inside = sampling_locations.clamp(-1.0, 2.0).nan_to_num(nan=-1.0)
    grids = 2 * inside.to(wide) - 1  # grid_sample's [-1, 1]
    samples = []
    areas = [height * width for height, width in spatial_shapes]
    for level, (level_value, (height, width)) in enumerate(
        zip(value.to(wide).split(areas, dim=1), spatial_shapes)
    ):
        # [B, h*w, H, D] -> [B*H, D, h, w]
        maps = level_value.flatten(2).transpose(1, 2).reshape(batch * heads, depth, height, width)
        # [B, Q, H, P, 2] -> [B*H, Q, P, 2]
        grid = grids[:, :, :, level].transpose(1, 2).flatten(0, 1)
        samples.append(
            F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        )  # [B*H, D, Q, P]
    weights = attention_weights.transpose(1, 2).reshape(batch * heads, 1, queries, levels * points)
    sampled = torch.cat(samples, dim=-1)  # [B*H, D, Q, L*P]
    output = (sampled * weights.to(wide)).sum(-1)  # [B*H, D, Q]
    return output.view(batch, heads * depth, queries).transpose(1, 2).contiguous().to(value.dtype)
