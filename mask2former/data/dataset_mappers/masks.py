"""Turns label maps into the per-segment masks, classes and boxes that the criterion wants."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from detectron2.structures import Instances

# What the padded part of an image is filled with (MaskFormer).
IMAGE_PAD_VALUE = 128


def pad_to(tensor: torch.Tensor, side: int, value: int) -> torch.Tensor:
    """Makes the last two sides of ``[..., H, W]`` exactly ``side`` by padding, or cutting.

    Right and bottom, in pixels. A ``side`` of zero or less leaves the tensor alone. It is no
    multiple-of rule: larger inputs are cut, as in the published mappers.
    """
    if side <= 0:
        return tensor
    height, width = tensor.shape[-2:]
    return F.pad(tensor, (0, side - width, 0, side - height), value=value).contiguous()


def pad_labels(labels: np.ndarray, side: int, ignore_label: int) -> torch.Tensor:
    """`pad_to` of labels ``[H, W]`` with ``ignore_label``: uint8 if both are, else int64."""
    if labels.dtype != np.uint8 or not 0 <= ignore_label < 256:
        labels = labels.astype(np.int64)
    return pad_to(torch.from_numpy(labels), side, ignore_label)


def present_labels(labels: np.ndarray, ignore_label: int) -> list[int]:
    """Distinct values of a label map ``[H, W]`` in ascending order, without ``ignore_label``."""
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, -1)
    if labels.size and labels.dtype == np.uint8:
        found = np.flatnonzero(cv2.calcHist([labels], [0], None, [256], [0, 256]))
    elif low >= 0 and high < 2**16:  # counting beats sorting for the usual small labels
        found = np.flatnonzero(np.bincount(labels.ravel()))
    else:
        found = np.unique(labels)
    return [int(v) for v in found if v != ignore_label]


def equality_masks(labels: np.ndarray, values: Sequence[int]) -> torch.Tensor:
    """One mask a value: bool [N, H, W], or float32 [0, H, W] for no values (as published)."""
    if not len(values):
        return torch.zeros((0, *labels.shape))
    # numpy compares several times as fast as torch here.
    masks = np.empty((len(values), *labels.shape), bool)
    for mask, value in zip(masks, values):
        np.equal(labels, value, out=mask)
    return torch.from_numpy(masks)


def number_segments(ids: np.ndarray, wanted: Sequence[int]) -> tuple[np.ndarray, list[int]]:
    """Replaces panoptic ids by small numbers, which are cheaper to carry around and to compare.

    Args:
        ids: int32 [H, W].
        wanted: ids of the segments of interest; an id may occur twice.

    Returns:
        a map [H, W], uint8 if it can be: 0 where no wanted segment is, otherwise a number from 1
        up; and the number of each wanted segment.
    """
    known = np.unique(np.asarray(wanted, np.int32))
    numbers = np.arange(1, len(known) + 1)
    dtype = np.uint8 if len(known) < 255 else np.int32
    if not len(known):
        return np.zeros(ids.shape, dtype), []
    # Segments are large, so a map has few runs of equal pixels: look up each run once.
    flat = ids.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    values = flat[starts]
    nearest = np.searchsorted(known, values).clip(max=len(known) - 1)
    found = np.where(known[nearest] == values, numbers[nearest], 0).astype(dtype)
    lengths = np.diff(starts, append=flat.size)
    return found.repeat(lengths).reshape(ids.shape), numbers[
        np.searchsorted(known, np.asarray(wanted, np.int32))
    ].tolist()


def more_than_one_pixel(numbered: np.ndarray, numbers: Sequence[int]) -> list[int]:
    """Positions of the ``numbers`` that at least two pixels of a map of `number_segments` have."""
    counts = np.bincount(numbered.ravel(), minlength=max(numbers, default=0) + 1)
    return [i for i, number in enumerate(numbers) if counts[number] > 1]


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
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks.numpy()):
        columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        if len(columns):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return torch.from_numpy(boxes)
