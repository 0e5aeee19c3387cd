"""ImageList: images of different sizes in one padded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from detectron2._missing import missing_getattr

__all__ = ["ImageList"]


def _round_up(value: int, divisor: int) -> int:
    return (value + divisor - 1) // divisor * divisor


class ImageList:
    """A batch of images, each in the top left corner of its slot.

    Attributes:
        tensor: [N, H, W] or [N, C, ..., H, W], padded at the right and the bottom.
        image_sizes: N times (height, width) before padding, as ints.
    """

    def __init__(self, tensor: torch.Tensor, image_sizes: list[tuple[int, int]]) -> None:
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, idx: int) -> torch.Tensor:
        """The image without its padding, [H, W] or [C, ..., H, W]; a view."""
        height, width = self.image_sizes[idx]
        return self.tensor[idx, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[torch.Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: Mapping[str, int] | None = None,
    ) -> ImageList:
        """Pad to a common size and stack.

        Args:
            tensors: [H_i, W_i] or [C, ..., H_i, W_i] each, with equal leading dimensions.
            size_divisibility: the common height and width become multiples of this, if > 1.
            pad_value: value of the padding.
            padding_constraints: may hold ``square_size`` (pad to a square of this size, if > 0)
                and ``size_divisibility`` (overrides the argument).

        Raises:
            AssertionError: no tensors, other types, or different leading dimensions.
        """
        if not isinstance(tensors, (list, tuple)) or len(tensors) == 0:
            raise AssertionError("ImageList.from_tensors needs a non-empty list of tensors")
        leading = tensors[0].shape[:-2]
        for tensor in tensors:
            if not isinstance(tensor, torch.Tensor):
                raise AssertionError(f"ImageList.from_tensors needs tensors, not {type(tensor)}")
            if tensor.shape[:-2] != leading:
                raise AssertionError(
                    f"Images of shapes {list(tensors[0].shape)} and {list(tensor.shape)} cannot "
                    "share a batch: they differ before the last two dimensions"
                )

        image_sizes = [(int(t.shape[-2]), int(t.shape[-1])) for t in tensors]
        height = max(size[0] for size in image_sizes)
        width = max(size[1] for size in image_sizes)
        constraints = padding_constraints or {}
        square_size = constraints.get("square_size", 0)
        if square_size > 0:
            height = width = square_size
        size_divisibility = constraints.get("size_divisibility", size_divisibility)
        if size_divisibility > 1:
            height = _round_up(height, size_divisibility)
            width = _round_up(width, size_divisibility)

        if len(tensors) == 1:
            # One padding call instead of an allocation and a copy; also friendlier to tracing.
            h, w = image_sizes[0]
            batch = F.pad(tensors[0], (0, width - w, 0, height - h), value=pad_value)[None]
        else:
            batch = tensors[0].new_full((len(tensors), *leading, height, width), pad_value)
            for slot, tensor, (h, w) in zip(batch, tensors, image_sizes):
                slot[..., :h, :w].copy_(tensor)
        return ImageList(batch.contiguous(), image_sizes)


__getattr__ = missing_getattr(__name__)
