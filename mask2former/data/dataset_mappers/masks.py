"""Turns label maps into the per-segment masks, classes and boxes that the criterion wants."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from detectron2.structures import Instances

# What the padded part of an image is filled with (MaskFormer).
IMAGE_PAD_VALUE = 128


def pad_to(tensor: torch.Tensor, side: int, value: int) -> torch.Tensor:
    """Makes the last two sides exactly ``side`` by padding, or cutting, right and bottom.

    A ``side`` of zero or less leaves the tensor alone. It is no multiple-of rule: larger inputs
    are cut, as in the published mappers.
    """
    if side <= 0:
        return tensor
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, side - width, 0, side - height), value=value).contiguous()


def present_labels(labels: np.ndarray, ignore_label: int) -> list[int]:
    """Distinct values of a label map in ascending order, without ``ignore_label``."""
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, -1)
    if low >= 0 and high < 2**16:  # counting beats sorting for the usual small labels
        found = np.flatnonzero(np.bincount(labels.ravel()))
    else:
        found = np.unique(labels)
    return [int(v) for v in found if v != ignore_label]


def equality_masks(labels: np.ndarray, values: Sequence[int]) -> torch.Tensor:
    """One mask a value: bool [N, H, W], or float32 [0, H, W] for no values (as published)."""
    if not len(values):
        return torch.zeros((0, *labels.shape))
    wanted = torch.tensor(values, dtype=torch.int64)
    pixels = torch.from_numpy(labels)
    return pixels[None] == wanted.to(pixels.dtype)[:, None, None]


def make_instances(
    shape: tuple[int, int], classes: Sequence[int], masks: torch.Tensor
) -> Instances:
    """Instances with ``gt_classes`` int64 [N] and ``gt_masks`` [N, H, W]."""
    instances = Instances(tuple(int(s) for s in shape))
    instances.gt_classes = torch.tensor(list(classes), dtype=torch.int64)
    instances.gt_masks = masks
    return instances


def tight_boxes(masks: torch.Tensor) -> torch.Tensor:
    """XYXY boxes of bool [N, H, W] masks, float32 [N, 4], right and bottom exclusive.

    An empty mask has a box of zeros, as detectron2's BitMasks has it.
    """
    if not len(masks):
        return torch.zeros((0, 4))
    columns, rows = masks.any(dim=1), masks.any(dim=2)
    height, width = masks.shape[-2:]
    # argmax finds the first True; on the flipped axis, the last.
    x0, y0 = columns.byte().argmax(1), rows.byte().argmax(1)
    x1 = width - columns.flip(1).byte().argmax(1)
    y1 = height - rows.flip(1).byte().argmax(1)
    boxes = torch.stack([x0, y0, x1, y1], dim=1).float()
    return boxes * columns.any(dim=1, keepdim=True)
