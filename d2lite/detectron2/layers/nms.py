"""Non-maximum suppression per class."""

import torch
from torchvision.ops import boxes as box_ops

from detectron2._missing import missing_getattr

__all__ = ["batched_nms"]


def batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:
    """Suppression among boxes of one class.

    Args:
        boxes: [N, 4] (x0, y0, x1, y1).
        scores: [N].
        idxs: int [N], the class of each box.

    Returns:
        int64 indices of the kept boxes, by falling score.
    """
    # in fp32: class offsets are added to the coordinates inside, too much for half precision
    return box_ops.batched_nms(boxes.float(), scores, idxs, iou_threshold)


__getattr__ = missing_getattr(__name__)
