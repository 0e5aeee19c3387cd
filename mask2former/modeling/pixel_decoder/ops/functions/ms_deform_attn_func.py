"""Names and signatures of the published functions; the op lives in :mod:`mask2former.ops`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mask2former.ops import ms_deform_attn, ms_deform_attn_reference

__all__ = ["MSDeformAttnFunction", "ms_deform_attn_core_pytorch"]


class MSDeformAttnFunction:
    """The op as code written for Deformable DETR calls it: ``MSDeformAttnFunction.apply(...)``.

    Nothing is added to :func:`mask2former.ops.ms_deform_attn`, which is differentiable itself.
    """

    @staticmethod
    def apply(
        value: Tensor,
        value_spatial_shapes: Sequence[tuple[int, int]] | Tensor,
        value_level_start_index: Sequence[int] | Tensor | None,
        sampling_locations: Tensor,
        attention_weights: Tensor,
        im2col_step: int = 64,
    ) -> Tensor:
        """Arguments and result of :func:`mask2former.ops.ms_deform_attn`.

        Args:
            im2col_step: images the published kernel works on at once; has no effect here.
        """
        del im2col_step
        return ms_deform_attn(
            value,
            value_spatial_shapes,
            value_level_start_index,
            sampling_locations,
            attention_weights,
        )


def ms_deform_attn_core_pytorch(
    value: Tensor,
    value_spatial_shapes: Sequence[tuple[int, int]] | Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """The readable PyTorch path, see :func:`mask2former.ops.ms_deform_attn_reference`.

    Args:
        value: ``[B, S, H, D]``.
        value_spatial_shapes: ``(height, width)`` of each level, ints or an int tensor ``[L, 2]``.
        sampling_locations: ``[B, Q, H, L, P, 2]``.
        attention_weights: ``[B, Q, H, L, P]``.

    Returns:
        ``[B, Q, H*D]``.
    """
    if isinstance(value_spatial_shapes, Tensor):
        value_spatial_shapes = value_spatial_shapes.tolist()
    shapes = [(int(height), int(width)) for height, width in value_spatial_shapes]
    return ms_deform_attn_reference(value, shapes, sampling_locations, attention_weights)
