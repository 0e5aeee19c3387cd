"""Small helpers under their published names (DETR's ``util/misc.py``)."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


class NestedTensor:
    """A padded batch and the mask of its padding.

    Attributes:
        tensors: ``[B, C, H, W]``.
        mask: bool ``[B, H, W]``, True where there is padding; None if unknown.
    """

    def __init__(self, tensors: Tensor, mask: Tensor | None) -> None:
        self.tensors = tensors
        self.mask = mask

    def to(self, device: torch.device | str) -> NestedTensor:
        """The same on another device."""
        mask = None if self.mask is None else self.mask.to(device)
        return NestedTensor(self.tensors.to(device), mask)

    def decompose(self) -> tuple[Tensor, Tensor | None]:
        """(tensors, mask)."""
        return self.tensors, self.mask

    def __repr__(self) -> str:
        return f"NestedTensor(shape={tuple(self.tensors.shape)}, dtype={self.tensors.dtype})"


def nested_tensor_from_tensor_list(tensor_list: list[Tensor]) -> NestedTensor:
    """Pads maps of different sizes with zeros, at the bottom and at the right, to one batch.

    Args:
        tensor_list: B tensors ``[C, H_i, W_i]`` of one dtype and device.

    Raises:
        ValueError: if the list is empty or holds anything but three-dimensional tensors.
    """
    if not tensor_list or any(tensor.ndim != 3 for tensor in tensor_list):
        shapes = [tuple(tensor.shape) for tensor in tensor_list]
        raise ValueError(f"expected tensors [C, H, W], got shapes {shapes}")
    size = [max(sides) for sides in zip(*(tensor.shape for tensor in tensor_list))]  # C, H, W
    batch = tensor_list[0].new_zeros([len(tensor_list), *size])
    mask = torch.ones([len(batch), *size[1:]], dtype=torch.bool, device=batch.device)
    for padded, padding, tensor in zip(batch, mask, tensor_list):
        channels, height, width = tensor.shape
        padded[:channels, :height, :width].copy_(tensor)
        padding[:height, :width] = False
    return NestedTensor(batch, mask)


def is_dist_avail_and_initialized() -> bool:
    """Whether this process takes part in a process group."""
    return dist.is_available() and dist.is_initialized()
