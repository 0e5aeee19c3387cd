"""Axis-aligned boxes, their number formats, and overlaps between sets of boxes."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, unique
from typing import Any

import numpy as np
import torch

from detectron2._missing import missing_getattr

__all__ = [
    "BoxMode",
    "Boxes",
    "matched_pairwise_iou",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_point_box_distance",
]


@unique
class BoxMode(IntEnum):
    """How the numbers of a box are to be read."""

    XYXY_ABS = 0
    """(x0, y0, x1, y1) in pixels, x1 and y1 exclusive."""
    XYWH_ABS = 1
    """(x0, y0, width, height) in pixels."""
    XYXY_REL = 2
    """Not supported: XYXY relative to the image size."""
    XYWH_REL = 3
    """Not supported: XYWH relative to the image size."""
    XYWHA_ABS = 4
    """(center x, center y, width, height, counter-clockwise degrees)."""

    @staticmethod
    def convert(box: Any, from_mode: BoxMode, to_mode: BoxMode) -> Any:
        """Convert one box or many; the input is never changed.

        Args:
            box: list or tuple of 4 or 5 numbers, array or tensor [..., 4 or 5].

        Returns:
            the input's type; the input itself when the modes are equal. Integer lists stay
            integers where the conversion allows it.

        Raises:
            AssertionError: a relative mode, or a wrong number of values.
            NotImplementedError: not XYXY <-> XYWH, XYWHA -> XYXY or XYWH -> XYWHA.
        """
        if from_mode == to_mode:
            return box
        relative = (BoxMode.XYXY_REL, BoxMode.XYWH_REL)
        if from_mode in relative or to_mode in relative:
            raise AssertionError("Relative box modes are not supported")

        if isinstance(box, (list, tuple)):
            if len(box) not in (4, 5):
                raise AssertionError(
                    f"BoxMode.convert takes a list or tuple of 4 or 5 numbers, not {len(box)}"
                )
            array = torch.tensor(box)[None, :]
        elif isinstance(box, np.ndarray):
            array = torch.from_numpy(box.copy())
        else:
            array = box.clone()

        if (from_mode, to_mode) == (BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS):
            array = _rotated_to_xyxy(array)
        elif (from_mode, to_mode) == (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
            array[..., 2:4] -= array[..., 0:2]
        elif (from_mode, to_mode) == (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS):
            array[..., 2:4] += array[..., 0:2]
        elif (from_mode, to_mode) == (BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS):
            center = array[..., 0:2].double() + array[..., 2:4].double() / 2
            parts = (center, array[..., 2:4], torch.zeros_like(center[..., :1]))
            array = torch.cat(parts, dim=-1).to(array.dtype)
        else:
            raise NotImplementedError(
                f"Conversion from {from_mode!r} to {to_mode!r} is not supported"
            )

        if isinstance(box, (list, tuple)):
            return type(box)(array.flatten().tolist())
        return array.numpy() if isinstance(box, np.ndarray) else array


def _rotated_to_xyxy(box: torch.Tensor) -> torch.Tensor:
    """Smallest upright boxes [..., 4] around rotated ones [..., 5]; keeps a floating dtype."""
    if box.shape[-1] != 5:
        raise AssertionError("The last dimension of XYWHA boxes must be 5")
    dtype = box.dtype
    box = box.double()
    center, size = box[..., 0:2], box[..., 2:4]
    theta = torch.deg2rad(box[..., 4])
    cos, sin = theta.cos().abs(), theta.sin().abs()
    half_width = (size[..., 0] * cos + size[..., 1] * sin) / 2
    half_height = (size[..., 0] * sin + size[..., 1] * cos) / 2
    half = torch.stack((half_width, half_height), dim=-1)
    return torch.cat((center - half, center + half), dim=-1).to(dtype)


class Boxes:
    """N boxes, float32 [N, 4], as (x0, y0, x1, y1) in pixels."""

    def __init__(self, tensor: torch.Tensor | np.ndarray | list) -> None:
        """
        Args:
            tensor: [N, 4]; anything but a tensor becomes one on the CPU; empty input means N = 0.

        Raises:
            AssertionError: another shape.
        """
        if isinstance(tensor, torch.Tensor):
            tensor = tensor.to(torch.float32)
        else:
            tensor = torch.as_tensor(tensor, dtype=torch.float32, device=torch.device("cpu"))
        if tensor.numel() == 0:
            # reshape, so that an empty box set stays part of the autograd graph
            tensor = tensor.reshape((-1, 4))
        if tensor.dim() != 2 or tensor.size(-1) != 4:
            raise AssertionError(f"Boxes need a tensor of shape [N, 4], not {list(tensor.shape)}")
        self.tensor = tensor

    def clone(self) -> Boxes:
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device | str) -> Boxes:
        """Boxes are float32 whatever happens, so only a device may be given."""
        return Boxes(self.tensor.to(device=device))

    def area(self) -> torch.Tensor:
        """float32 [N]"""
        box = self.tensor
        return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])

    def clip(self, box_size: tuple[int, int]) -> None:
        """Clip, in place, to ``box_size`` = (height, width).

        Raises:
            AssertionError: a coordinate is infinite or NaN.
        """
        if not torch.isfinite(self.tensor).all():
            raise AssertionError("Box tensor contains infinite or NaN!")
        height, width = box_size
        x = self.tensor[:, 0::2].clamp(min=0, max=width)
        y = self.tensor[:, 1::2].clamp(min=0, max=height)
        self.tensor = torch.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), dim=-1)

    def nonempty(self, threshold: float = 0.0) -> torch.Tensor:
        """bool [N]: both sides are longer than ``threshold``."""
        sides = self.tensor[:, 2:] - self.tensor[:, :2]
        return (sides > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> torch.Tensor:
        """bool [N]: the box stays within (height, width), give or take a margin in pixels."""
        height, width = box_size
        box = self.tensor
        return (
            (box[:, 0] >= -boundary_threshold)
            & (box[:, 1] >= -boundary_threshold)
            & (box[:, 2] < width + boundary_threshold)
            & (box[:, 3] < height + boundary_threshold)
        )

    def get_centers(self) -> torch.Tensor:
        """float32 [N, 2] as (x, y)"""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Scale in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    def __getitem__(self, item: int | slice | torch.Tensor) -> Boxes:
        """Select boxes; an int gives one box in a Boxes of length 1."""
        if isinstance(item, int):
            return Boxes(self.tensor[item].view(1, -1))
        selected = self.tensor[item]
        if selected.dim() != 2:
            raise AssertionError(f"Indexing on Boxes with {item} failed to return a matrix!")
        return Boxes(selected)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield float32 [4] tensors."""
        yield from self.tensor

    @classmethod
    def cat(cls, boxes_list: list[Boxes]) -> Boxes:
        """Concatenate; an empty list gives no boxes."""
        if not isinstance(boxes_list, (list, tuple)):
            raise AssertionError("Boxes.cat needs a list of Boxes")
        if len(boxes_list) == 0:
            return cls(torch.empty(0))
        return cls(torch.cat([boxes.tensor for boxes in boxes_list], dim=0))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection areas, float32 [N, M], of every box of one set with every box of the other."""
    a, b = boxes1.tensor[:, None], boxes2.tensor[None, :]
    sides = torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2])
    return sides.clamp_(min=0).prod(dim=2)


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection over union, float32 [N, M]; 0 where boxes do not intersect."""
    inter = pairwise_intersection(boxes1, boxes2)
    union = boxes1.area()[:, None] + boxes2.area() - inter
    return torch.where(inter > 0, inter / union, inter.new_zeros(()))


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection over the area of ``boxes2``, float32 [N, M]; 0 without intersection."""
    inter = pairwise_intersection(boxes1, boxes2)
    return torch.where(inter > 0, inter / boxes2.area(), inter.new_zeros(()))


def matched_pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """Intersection over union of the i-th box of one set with the i-th of the other, [N].

    Raises:
        AssertionError: the sets have different sizes.
    """
    if len(boxes1) != len(boxes2):
        raise AssertionError(f"Box sets of {len(boxes1)} and {len(boxes2)} boxes do not match")
    a, b = boxes1.tensor, boxes2.tensor
    sides = torch.min(a[:, 2:], b[:, 2:]) - torch.max(a[:, :2], b[:, :2])
    inter = sides.clamp_(min=0).prod(dim=1)
    union = boxes1.area() + boxes2.area() - inter
    return torch.where(inter > 0, inter / union, inter.new_zeros(()))


def pairwise_point_box_distance(points: torch.Tensor, boxes: Boxes) -> torch.Tensor:
    """Signed distances of points [P, 2] (x, y) to the sides of boxes, [P, N, 4].

    Order: left, top, right, bottom; all positive means that the point is inside.
    """
    point = points[:, None, :]
    return torch.cat((point - boxes.tensor[:, :2], boxes.tensor[:, 2:] - point), dim=2)


__getattr__ = missing_getattr(__name__)
