"""Bilinear values of maps at points, as ``point_sample`` gives them, at less cost.

``point_sample`` (``grid_sample``) wants masks in floating point, which a batch of large
ground-truth masks had better not be, and walks through channels one by one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_features(features: Tensor, points: Tensor) -> Tensor:
    """Values of all channels at points. Not differentiable with respect to the points.

    Args:
        features: float32 or float64 [C, H, W].
        points: (x, y) in [0, 1], [P, 2].

    Returns:
        [P, C]; zeros lie around the map.
    """
    height, width = features.shape[1:]
    columns, weights_x = _neighbours(points[:, 0].to(features.dtype), width)  # [P, 2]
    lines, weights_y = _neighbours(points[:, 1].to(features.dtype), height)
    pixels = (lines[:, :, None] * width + columns[:, None]).flatten(1)  # [P, 4]
    weights = (weights_y[:, :, None] * weights_x[:, None]).flatten(1)
    # A weighted sum of four rows: channels lie side by side, unlike in grid_sample.
    rows = features.flatten(1).T.contiguous()  # [H*W, C]
    return F.embedding_bag(pixels, rows, per_sample_weights=weights, mode="sum")


def _neighbours(position: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The two pixels beside each position in [0, 1] and their weights, [P, 2] each."""
    x = position * length - 0.5
    before = x.floor()
    after_weight = x - before
    pixel = torch.stack([before, before + 1], 1).long()
    weight = torch.stack([1 - after_weight, after_weight], 1)
    inside = (pixel >= 0) & (pixel < length)
    return pixel.clamp(0, length - 1), weight * inside


def sample_masks(
    masks: Tensor, size: tuple[int, int], points: Tensor, rows: Tensor | None = None
) -> Tensor:
    """Bilinear values of masks at points, without a floating point copy of the masks.

    Agrees with ``point_sample`` (``grid_sample`` with zeros outside and ``align_corners=False``).

    Args:
        masks: [G, 1 + H + 1, 1 + W + 1] as in :class:`~.targets.PackedTargets`.
        size: (height, width) of the image that points are relative to, at most (H, W).
        points: (x, y) in [0, 1]: [P, 2] for all masks, or [N, P, 2] with ``rows``.
        rows: int64 [N], the mask that each row of points looks at.

    Returns:
        [G, P] or [N, P], in the type of ``points``.
    """
    # Distance from the centre of the border pixel at the top left, so never negative.
    x = points[..., 0] * size[1] + 0.5
    y = points[..., 1] * size[0] + 0.5
    left, top = x.long(), y.long()
    x, y = x - left, y - top
    pitch = masks.shape[-1]
    pixel = top * pitch + left  # the upper left of the four pixels around the point

    flat = masks.flatten(1)  # [G, (H + 2) * (W + 2)]
    if rows is not None:
        pixel = pixel + rows[:, None] * flat.shape[1]

    def at(offset: int) -> Tensor:
        if rows is None:
            values = flat.gather(1, (pixel + offset).expand(len(flat), -1))  # [G, P]
        else:
            values = flat.take(pixel + offset)  # [N, P]
        return values.to(points.dtype)

    upper = torch.lerp(at(0), at(1), x)
    lower = torch.lerp(at(pitch), at(pitch + 1), x)
    return torch.lerp(upper, lower, y)
