"""Rotated boxes (as far as loading and drawing annotations need them)."""

from __future__ import annotations

import torch

from detectron2._missing import missing_getattr
from detectron2.structures.boxes import Boxes

__all__ = ["RotatedBoxes"]


class RotatedBoxes(Boxes):
    """N boxes, float32 [N, 5]: center x, center y, width, height, counter-clockwise degrees."""

    def __init__(self, tensor: torch.Tensor) -> None:
        tensor = torch.as_tensor(tensor, dtype=torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape((-1, 5))
        if tensor.dim() != 2 or tensor.size(-1) != 5:
            raise AssertionError(f"RotatedBoxes need a tensor [N, 5], not {list(tensor.shape)}")
        self.tensor = tensor

    def clone(self) -> RotatedBoxes:
        return RotatedBoxes(self.tensor.clone())

    def to(self, device: torch.device | str) -> RotatedBoxes:
        return RotatedBoxes(self.tensor.to(device=device))

    def area(self) -> torch.Tensor:
        return self.tensor[:, 2] * self.tensor[:, 3]

    def normalize_angles(self) -> None:
        """Bring angles into [-180, 180) degrees."""
        angles = (self.tensor[:, 4] + 180.0) % 360.0 - 180.0
        self.tensor = torch.cat((self.tensor[:, :4], angles[:, None]), dim=1)

    def clip(self, box_size: tuple[int, int], clip_angle_threshold: float = 1.0) -> None:
        """Clip nearly upright boxes to (height, width), in place; others stay as they are."""
        height, width = box_size
        self.normalize_angles()
        upright = self.tensor[:, 4].abs() <= clip_angle_threshold
        center, size = self.tensor[upright, 0:2], self.tensor[upright, 2:4]
        limit = center.new_tensor([width, height])
        low = torch.minimum((center - size / 2).clamp(min=0), limit)
        high = torch.minimum((center + size / 2).clamp(min=0), limit)
        self.tensor[upright, 0:2] = (low + high) / 2
        # the clipped size must not grow through rounding
        self.tensor[upright, 2:4] = torch.min(size, high - low)

    def nonempty(self, threshold: float = 0.0) -> torch.Tensor:
        return (self.tensor[:, 2:4] > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> torch.Tensor:
        """bool [N]: the upright hull stays within (height, width)."""
        height, width = box_size
        theta = torch.deg2rad(self.tensor[:, 4])
        cos, sin = theta.cos().abs(), theta.sin().abs()
        x, y, w, h = self.tensor[:, :4].unbind(dim=1)
        half_w, half_h = (w * cos + h * sin) / 2, (w * sin + h * cos) / 2
        return (
            (x - half_w >= -boundary_threshold)
            & (y - half_h >= -boundary_threshold)
            & (x + half_w < width + boundary_threshold)
            & (y + half_h < height + boundary_threshold)
        )

    def get_centers(self) -> torch.Tensor:
        return self.tensor[:, :2]

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Scale in place; for unequal factors the result is the box closest to the sheared one."""
        theta = torch.deg2rad(self.tensor[:, 4])
        cos, sin = theta.cos(), theta.sin()
        self.tensor[:, 0] *= scale_x
        self.tensor[:, 1] *= scale_y
        self.tensor[:, 2] *= torch.hypot(scale_x * cos, scale_y * sin)
        self.tensor[:, 3] *= torch.hypot(scale_x * sin, scale_y * cos)
        self.tensor[:, 4] = torch.rad2deg(torch.atan2(scale_x * sin, scale_y * cos))

    def __getitem__(self, item: int | slice | torch.Tensor) -> RotatedBoxes:
        if isinstance(item, int):
            return RotatedBoxes(self.tensor[item].view(1, -1))
        return RotatedBoxes(self.tensor[item])

    def __repr__(self) -> str:
        return f"RotatedBoxes({self.tensor})"


__getattr__ = missing_getattr(__name__)
