"""Logits such as a trained model gives: random weights keep no panoptic query at all."""

import math

import torch
from torch import Tensor

CONFIDENT = 18  # queries with a segment; COCO's images have about that many things and stuff


def trained_like(queries: int, classes: int, size: tuple[int, int], device: str = "cpu"):
    """Class logits [1, Q, K + 1] and mask logits [1, Q, H, W].

    The first queries are sure of a class and of an ellipse, with a ragged border; the others say
    "no object" and have faint masks.

    Args:
        size: of the masks, a quarter of the padded image.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, queries, classes + 1, generator=generator)
    confident = min(CONFIDENT, max(1, queries // 2))
    chosen = torch.randint(0, classes, (confident,), generator=generator)
    logits[0, torch.arange(confident), chosen] += 12
    logits[0, confident:, -1] += 8
    return logits.to(device), _masks(queries, confident, size, generator)[None].to(device)


def _masks(
    queries: int, confident: int, size: tuple[int, int], generator: torch.Generator
) -> Tensor:
    height, width = size
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    masks = torch.empty(queries, height, width)
    # A grid of centres, so that most segments keep most of their mask.
    columns = math.ceil(math.sqrt(confident))
    for query in range(queries):
        cell = query % (columns * columns)
        cy, cx = (cell // columns + 0.5) / columns, (cell % columns + 0.5) / columns
        a, b = (torch.rand(2, generator=generator) * 0.25 + 0.4) / columns
        distance = ((x - cx) / a).square() + ((y - cy) / b).square()
        noise = torch.nn.functional.interpolate(
            torch.randn(1, 1, height // 8 + 1, width // 8 + 1, generator=generator),
            size=size,
            mode="bilinear",
        )[0, 0]
        sharpness, bias = (8.0, 0.0) if query < confident else (2.0, -1.0)
        masks[query] = sharpness * (1 - distance).clamp(min=-2) + noise + bias
    return masks
