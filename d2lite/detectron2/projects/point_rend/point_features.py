"""Sampling of points on feature maps and masks (PointRend, Kirillov et al., CVPR 2020).

Point coordinates are (x, y) in [0, 1] x [0, 1], relative to the map: a pixel's centre of an
H x W map is ((j + 0.5) / W, (i + 0.5) / H).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F

from detectron2._missing import missing_getattr
from detectron2.layers import cat

__all__ = [
    "cat",
    "generate_regular_grid_point_coords",
    "get_point_coords_wrt_image",
    "get_uncertain_point_coords_on_grid",
    "get_uncertain_point_coords_with_randomness",
    "point_sample",
]


def point_sample(input: torch.Tensor, point_coords: torch.Tensor, **kwargs) -> torch.Tensor:
    """Read feature maps at points.

    Args:
        input: [N, C, H, W].
        point_coords: [N, P, 2] or [N, Hg, Wg, 2].
        kwargs: of ``torch.nn.functional.grid_sample``; ``align_corners=False`` for coordinates as
            described above.

    Returns:
        [N, C, P] or [N, C, Hg, Wg]. Maps in half precision are read in that of the coordinates.
    """
    grid = 2.0 * point_coords - 1.0
    if input.dtype != grid.dtype:
        # Half precision could not address the pixels of a large map.
        dtype = torch.promote_types(input.dtype, grid.dtype)
        input, grid = input.to(dtype), grid.to(dtype)
    if point_coords.dim() == 3:
        return F.grid_sample(input, grid.unsqueeze(2), **kwargs).squeeze(3)
    return F.grid_sample(input, grid, **kwargs)


def get_uncertain_point_coords_with_randomness(
    coarse_logits: torch.Tensor,
    uncertainty_func: Callable[[torch.Tensor], torch.Tensor],
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
) -> torch.Tensor:
    """Draw points, most of them where the prediction is uncertain (PointRend, section 3.1).

    Args:
        coarse_logits: [N, C, H, W]; N may be 0.
        uncertainty_func: logits at points [N, C, P] -> uncertainty [N, 1, P].
        num_points: P, points per map.
        oversample_ratio: k >= 1; k * P uniform points are looked at ...
        importance_sample_ratio: beta in [0, 1]; ... and the beta * P most uncertain are taken. The
            rest are fresh uniform points.

    Returns:
        [N, P, 2], on the device of the logits.

    Raises:
        AssertionError: a ratio is out of its range.
    """
    if oversample_ratio < 1 or not 0 <= importance_sample_ratio <= 1:
        raise AssertionError(
            f"OVERSAMPLE_RATIO must be >= 1 (is {oversample_ratio}) and IMPORTANCE_SAMPLE_RATIO in "
            f"[0, 1] (is {importance_sample_ratio})"
        )
    num_maps, device = coarse_logits.shape[0], coarse_logits.device
    num_sampled = int(num_points * oversample_ratio)
    num_uncertain = int(importance_sample_ratio * num_points)
    num_random = num_points - num_uncertain

    candidates = torch.rand(num_maps, num_sampled, 2, device=device)
    # The uncertainty of the interpolated logits, not the interpolated uncertainty: between two
    # confident pixels of different classes lies an uncertain point.
    logits = point_sample(coarse_logits, candidates, align_corners=False)
    uncertainty = uncertainty_func(logits)[:, 0, :]
    best = torch.topk(uncertainty, k=num_uncertain, dim=1).indices
    points = candidates.gather(1, best.unsqueeze(2).expand(-1, -1, 2))
    if num_random > 0:
        points = cat([points, torch.rand(num_maps, num_random, 2, device=device)], dim=1)
    return points


def get_uncertain_point_coords_on_grid(
    uncertainty_map: torch.Tensor, num_points: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The most uncertain pixels of each map (inference of PointRend).

    Args:
        uncertainty_map: [N, 1, H, W].
        num_points: at most this many; fewer on smaller maps.

    Returns:
        positions in the flattened map, int64 [N, P], and coordinates [N, P, 2].
    """
    n, _, h, w = uncertainty_map.shape
    indices = torch.topk(uncertainty_map.reshape(n, h * w), k=min(h * w, num_points), dim=1).indices
    x = ((indices % w).float() + 0.5) / w
    y = (torch.div(indices, w, rounding_mode="floor").float() + 0.5) / h
    return indices, torch.stack([x, y], dim=2)


def generate_regular_grid_point_coords(
    R: int,
    side_size: int,
    device: torch.device,
) -> torch.Tensor:
    """Centres of a regular grid, [R, side_size * side_size, 2], row by row."""
    centers = (torch.arange(side_size, device=device, dtype=torch.float32) + 0.5) / side_size
    y, x = torch.meshgrid(centers, centers, indexing="ij")
    return torch.stack([x, y], dim=-1).view(1, -1, 2).expand(R, -1, -1)


def get_point_coords_wrt_image(
    boxes_coords: torch.Tensor, point_coords: torch.Tensor
) -> torch.Tensor:
    """Coordinates relative to boxes -> pixels of the image.

    Args:
        boxes_coords: [N, 4], XYXY in pixels.
        point_coords: [N, P, 2], in [0, 1] relative to the box.

    Returns:
        [N, P, 2].
    """
    low, high = boxes_coords[:, None, :2], boxes_coords[:, None, 2:]
    return point_coords * (high - low) + low


__getattr__ = missing_getattr(__name__)
