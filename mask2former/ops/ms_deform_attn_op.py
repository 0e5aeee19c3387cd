"""``ms_deform_attn``: checks its arguments and chooses the fastest implementation there is."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mask2former.ops.reference import ms_deform_attn_reference


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]] | Tensor,
    level_start_index: Sequence[int] | Tensor | None,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Multi-scale deformable attention (first version: reference path only)."""
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = [tuple(shape) for shape in spatial_shapes.tolist()]
    return ms_deform_attn_reference(value, spatial_shapes, sampling_locations, attention_weights)
