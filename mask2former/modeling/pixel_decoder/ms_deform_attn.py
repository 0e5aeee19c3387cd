"""The multi-scale deformable attention layer: projections around the op of mask2former.ops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mask2former.ops import ms_deform_attn, short_softmax, token_layers


class MSDeformAttn(nn.Module):
    """Each query looks at a few learned points of every feature level (Deformable DETR, eq. 3).

    Parameter names and the initialisation are the published ones: at first, head ``k`` looks along
    the direction ``2 pi k / n_heads`` at distances of 1 to ``n_points`` pixels, equally weighted.
    """

    def __init__(
        self,
        d_model: int = 256,
        n_levels: int = 4,
        n_heads: int = 8,
        n_points: int = 4,
        ratio: float = 1.0,
    ) -> None:
        """
        Args:
            d_model: channels of queries, values and output.
            n_levels: feature levels that are looked at.
            n_heads: attention heads; must divide ``d_model``.
            n_points: samples per head and level.
            ratio: width of the values as a share of ``d_model`` (ViT-Adapter, section 3.3).

        Raises:
            ValueError: if ``n_heads`` does not divide ``d_model`` or the width of the values.
        """
        super().__init__()
        width = int(d_model * ratio)
        if d_model % n_heads or width % n_heads:
            raise ValueError(
                f"d_model ({d_model}) and the width of the values ({width}) must be divisible by "
                f"n_heads ({n_heads})"
            )
        self.d_model = d_model
        self.n_levels = n_levels
        self.n_heads = n_heads
        self.n_points = n_points

        self.sampling_offsets = nn.Linear(d_model, n_heads * n_levels * n_points * 2)
        self.attention_weights = nn.Linear(d_model, n_heads * n_levels * n_points)
        self.value_proj = nn.Linear(d_model, width)
        self.output_proj = nn.Linear(width, d_model)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Directional star for the offsets, uniform attention, Xavier projections."""
        angles = torch.arange(self.n_heads, dtype=torch.float32) * (2 * math.pi / self.n_heads)
        star = torch.stack([angles.cos(), angles.sin()], -1)  # [H, 2] on the circle
        star = star / star.abs().max(-1, keepdim=True).values  # ... pushed out to the unit square
        distances = torch.arange(1, self.n_points + 1, dtype=torch.float32)
        offsets = star[:, None, None, :] * distances[:, None]  # [H, 1, P, 2]
        offsets = offsets.expand(-1, self.n_levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.reshape(-1))
        nn.init.zeros_(self.sampling_offsets.weight)
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        input_flatten: Tensor,
        input_spatial_shapes: Sequence[tuple[int, int]] | Tensor,
        input_level_start_index: Sequence[int] | Tensor | None = None,
        input_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """
        Args:
            query: ``[B, Q, C]``.
            reference_points: ``[B, Q, L, 2]``, (x, y) in [0, 1] of the padded maps, or
                ``[B, Q, L, 4]`` with width and height of a reference box.
            input_flatten: ``[B, S, C]``, the levels one after another.
            input_spatial_shapes: ``(height, width)`` of each level, ints; an int tensor ``[L, 2]``
                is taken too, at the price of a copy to the host.
            input_level_start_index: optional, follows from the shapes.
            input_padding_mask: bool ``[B, S]``, True where there is no image; such values are zero.

        Returns:
            ``[B, Q, C]``.

        Raises:
            ValueError: for shapes that do not fit together.
        """
        shapes = _as_int_pairs(input_spatial_shapes)
        value = self.value_proj(input_flatten)
        if input_padding_mask is not None:
            value = value.masked_fill(input_padding_mask[..., None], 0.0)
        value = value.unflatten(-1, (self.n_heads, -1))  # [B, S, H, D]

        weights = short_softmax(self.attention_weights(query).unflatten(-1, (self.n_heads, -1)))
        weights = weights.unflatten(-1, (self.n_levels, self.n_points))  # [B, Q, H, L, P]
        locations = self._sampling_locations(query, reference_points, shapes)

        output = ms_deform_attn(value, shapes, input_level_start_index, locations, weights)
        return self.output_proj(output)

    def has_kernels(
        self, x: Tensor, pos: Tensor, reference_points: Tensor, spatial_shapes: Sequence | Tensor
    ) -> bool:
        """Whether :meth:`sample_in_kernels` can be called instead of ``forward``."""
        if not token_layers.is_untouched(self, MSDeformAttn):
            return False
        layers = (self.value_proj, self.sampling_offsets, self.attention_weights, self.output_proj)
        if not token_layers.applies(x, pos, reference_points, layers=layers):
            return False
        values, offsets, weights = (len(layer.weight) for layer in layers[:3])
        samples, after = self.n_heads * self.n_levels * self.n_points, token_layers.width_after
        return (
            x.dim() == 3
            and pos.shape in (x.shape, (1, *x.shape[1:]))
            and reference_points.dim() == 4
            and reference_points.shape[-1] == 2
            and len(spatial_shapes) == self.n_levels
            and all(after(x.shape[-1], layer) for layer in layers[:3])
            and (offsets, weights) == (2 * samples, samples)
            and values // self.n_heads % token_layers.WIDTH == 0
        )

    def sample_in_kernels(
        self,
        x: Tensor,
        pos: Tensor,
        reference_points: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Self-attention of tokens ``x [B, S, C]`` with queries ``x + pos``, for inference.

        As ``forward(x + pos, reference_points, x, spatial_shapes)``, reference points being
        ``[B, S, L, 2]``, but before the output projection.
        """
        shapes = _as_int_pairs(spatial_shapes)
        sizes = _level_sizes(shapes, x.dtype, x.device)[:, 0]  # [L, 2]
        value, locations, weights = token_layers.deformable_samples(
            x,
            pos,
            reference_points,
            sizes,
            self.value_proj,
            self.sampling_offsets,
            self.attention_weights,
            self.n_heads,
        )
        return ms_deform_attn(value, shapes, None, locations, weights)

    def _sampling_locations(
        self, query: Tensor, reference_points: Tensor, shapes: tuple[tuple[int, int], ...]
    ) -> Tensor:
        """Normalised (x, y) of every sample, ``[B, Q, H, L, P, 2]``."""
        samples = (self.n_heads, self.n_levels, self.n_points, 2)
        reference = reference_points[:, :, None, :, None, :]  # [B, Q, 1, L, 1, 2 or 4]
        if reference.shape[-1] not in (2, 4):
            raise ValueError(
                "reference_points must end in 2 (x, y) or 4 (x, y, w, h), "
                f"got shape {tuple(reference_points.shape)}"
            )
        plain = type(self.sampling_offsets) is nn.Linear  # not quantised, without adapter, ...
        if reference.shape[-1] == 2 and plain and self.sampling_offsets.bias is not None:
            weight, bias = self.sampling_offsets.weight, self.sampling_offsets.bias
            # Offsets are pixels of their level. Dividing the projection by the sizes of the maps,
            # not its output, saves a pass over a large tensor, and another one backward.
            sizes = _level_sizes(shapes, weight.dtype, weight.device)  # [L, 1, 2]
            scale = sizes.reciprocal().expand(samples).reshape(-1)
            offsets = F.linear(query, weight * scale[:, None], bias * scale)
            # Once for each level and point, so that the sum runs over L*P*2 neighbouring numbers,
            # not over 2. (ViT-Adapter gives one point for all levels.)
            reference = reference.expand(-1, -1, -1, self.n_levels, self.n_points, -1).flatten(3)
            locations = offsets.unflatten(-1, (self.n_heads, -1)) + reference
            return locations.unflatten(-1, samples[1:])
        offsets = self.sampling_offsets(query).unflatten(-1, samples)
        if reference.shape[-1] == 2:
            return reference + offsets / _level_sizes(shapes, offsets.dtype, offsets.device)
        # n_points steps reach from the centre of the box to its border.
        return reference[..., :2] + offsets * (reference[..., 2:] * (0.5 / self.n_points))


def _as_int_pairs(
    spatial_shapes: Sequence[tuple[int, int]] | Tensor,
) -> tuple[tuple[int, int], ...]:
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = spatial_shapes.tolist()
    return tuple((height, width) for height, width in spatial_shapes)


def _level_sizes(
    shapes: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """(width, height) of every level, ``[L, 1, 2]``."""
    if torch.compiler.is_compiling():  # sizes may be symbols, which neither hash nor cache
        return _make_level_sizes(shapes, dtype, device)
    return _cached_level_sizes(shapes, dtype, device)


def _make_level_sizes(shapes, dtype, device) -> Tensor:
    sides = [side for height, width in shapes for side in (width, height)]
    return torch.stack([torch.full((), side, dtype=dtype, device=device) for side in sides]).view(
        len(shapes), 1, 2
    )


@lru_cache(maxsize=64)
def _cached_level_sizes(shapes, dtype, device) -> Tensor:
    # Cached, so that a step on a GPU neither copies nor launches anything for it. Made outside
    # inference mode: a training step may be the next to use it.
    with torch.inference_mode(False):
        return _make_level_sizes(shapes, dtype, device)
