"""Ground truth of a batch, kept as bytes until it is sampled."""

import torch
import torch.nn.functional as F
from torch import Tensor


class PackedTargets(list):
    """The published targets (a list of dicts), plus all of their segments in one tensor each.

    Args:
        targets: per image ``labels`` int64 [n] and ``masks`` [n, H, W] (bool, or any type whose
            non-zero values mean foreground; floating point masks stay soft).

    Attributes:
        labels: int64 [G], the segments of image 0, then those of image 1, ...
        masks: [G, H, W]; smaller images are zero padded on the right and bottom.
        offsets: for each image the row of its first segment.
    """

    def __init__(self, targets: list[dict]) -> None:
        super().__init__(targets)
        masks = [as_compact_masks(target["masks"]) for target in targets]
        height = max(m.shape[-2] for m in masks)
        width = max(m.shape[-1] for m in masks)
        self.labels = torch.cat([target["labels"] for target in targets])
        self.masks = torch.cat(
            [F.pad(m, (0, width - m.shape[-1], 0, height - m.shape[-2])) for m in masks]
        )
        self.offsets = [sum(map(len, masks[:i])) for i in range(len(masks))]

    @classmethod
    def of(cls, targets: list[dict]) -> "PackedTargets":
        return targets if isinstance(targets, cls) else cls(targets)


def as_compact_masks(masks: Tensor) -> Tensor:
    """Integer masks as bool; bool, uint8 and soft (floating point) masks as they are."""
    if masks.is_floating_point() or masks.dtype in (torch.bool, torch.uint8):
        return masks
    return masks.bool()


def sample_masks(masks: Tensor, points: Tensor, rows: Tensor | None = None) -> Tensor:
    """Bilinear values of masks at points, without a floating point copy of the masks.

    Agrees with ``point_sample`` (``grid_sample`` with zeros outside and ``align_corners=False``).

    Args:
        masks: [G, H, W], bool, uint8 or floating point.
        points: (x, y) in [0, 1]: [P, 2] for all masks, or [N, P, 2] with ``rows``.
        rows: int64 [N], the mask that each row of points looks at.

    Returns:
        [G, P] or [N, P], in the type of ``points``.
    """
    height, width = masks.shape[-2:]
    x = points[..., 0] * width - 0.5
    y = points[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    flat = masks.flatten(1)  # [G, H*W]
    sampled = torch.zeros((), dtype=points.dtype, device=points.device)
    for column, weight_x in ((left, left + 1 - x), (left + 1, x - left)):
        inside_x = (column >= 0) & (column < width)
        for line, weight_y in ((top, top + 1 - y), (top + 1, y - top)):
            inside = inside_x & (line >= 0) & (line < height)
            weight = weight_x * weight_y * inside
            pixel = line.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            if rows is None:
                values = flat[:, pixel]  # [G, P]
            else:
                values = flat.reshape(-1)[rows[:, None] * flat.shape[1] + pixel]  # [N, P]
            sampled = sampled + values * weight
    return sampled
