"""Pasting small object maps into full images."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from detectron2._missing import missing_getattr

__all__ = ["paste_masks_in_image"]

# Sampling works on this many float32 values at a time (256 MiB), whatever the number of objects.
_MAX_VALUES = 64 * 1024**2


def paste_masks_in_image(
    masks: torch.Tensor, boxes: Any, image_shape: tuple[int, int], threshold: float = 0.5
) -> torch.Tensor:
    """Paste square maps into an image at their boxes, by bilinear sampling at pixel centres.

    Args:
        masks: [N, M, M], values in 0..1.
        boxes: ``Boxes`` or a tensor [N, 4] (x0, y0, x1, y1) in pixels.
        image_shape: (height, width).
        threshold: cut for the bool result; a negative one returns the soft values times 255.

    Returns:
        bool (or, for a negative threshold, uint8) [N, height, width].

    Raises:
        AssertionError: masks that are not square.
    """
    if masks.shape[-1] != masks.shape[-2]:
        raise AssertionError(f"Only square mask predictions are supported, not {masks.shape}")
    height, width = image_shape
    if not isinstance(boxes, torch.Tensor):
        boxes = boxes.tensor
    boxes = boxes.to(masks.device)
    if len(boxes) != len(masks):
        raise AssertionError(f"{len(boxes)} boxes for {len(masks)} masks")

    dtype = torch.bool if threshold >= 0 else torch.uint8
    out = torch.zeros(len(masks), height, width, device=masks.device, dtype=dtype)
    step = max(1, _MAX_VALUES // max(1, height * width))
    # pixel centres, relative to the box, in grid_sample's -1..1
    y = torch.arange(height, device=masks.device, dtype=torch.float32) + 0.5
    x = torch.arange(width, device=masks.device, dtype=torch.float32) + 0.5
    for start in range(0, len(masks), step):
        part = slice(start, start + step)
        x0, y0, x1, y1 = boxes[part].float().split(1, dim=1)
        grid_y = (y - y0) / (y1 - y0) * 2 - 1
        grid_x = (x - x0) / (x1 - x0) * 2 - 1
        n = grid_y.shape[0]
        grid = torch.stack(
            (
                grid_x[:, None, :].expand(n, height, width),
                grid_y[:, :, None].expand(n, height, width),
            ),
            dim=3,
        )
        soft = F.grid_sample(masks[part, None].float(), grid, align_corners=False)[:, 0]
        out[part] = soft >= threshold if threshold >= 0 else (soft * 255).to(torch.uint8)
    return out


__getattr__ = missing_getattr(__name__)
