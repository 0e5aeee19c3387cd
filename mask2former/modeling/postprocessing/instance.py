"""Instance segmentation from mask classification (Mask2Former, section 4.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from detectron2.structures import Boxes, Instances
from mask2former.ops import mask_strips

from .resize import Size, at_queries


class InstanceTask:
    """The most probable (query, class) pairs, rescored by how sure their masks are.

    A query may appear under several classes; its mask is made once. Other than published, the
    instances are sorted by score and carry real boxes, tight around their masks.

    Args:
        pair_queries: query of each pair, on the host.
        classes: class of each pair, int64 [N] on the device.
        scores: probability of each pair, [N] on the device.
        size: (height, width) of the result.
        as_bool: masks are given as bool, a quarter of the published float's memory.
    """

    def __init__(
        self,
        pair_queries: Sequence[int],
        classes: Tensor,
        scores: Tensor,
        size: Size,
        *,
        as_bool: bool = False,
    ) -> None:
        self.queries = sorted(set(pair_queries))
        ranks = {query: rank for rank, query in enumerate(self.queries)}
        ranks_of_pairs = torch.tensor([ranks[query] for query in pair_queries], dtype=torch.int64)
        self.ranks = ranks_of_pairs.to(scores.device, non_blocking=True)  # [N], mask of each pair
        self.classes = classes
        self.scores = scores
        self.size = size
        self.as_bool = as_bool
        count, device = len(self.queries), scores.device
        self.masks = torch.empty(count, *size, dtype=torch.bool, device=device)  # by add()
        self.areas = torch.zeros(count, dtype=scores.dtype, device=device)
        self.confidence = torch.zeros(count, dtype=scores.dtype, device=device)

    def add(self, rows: slice, probs: Tensor, index: Tensor) -> None:
        """Takes some rows of mask probabilities [N, rows, W]; ``queries`` are at ``index``, [M]."""
        if mask_strips.applies(probs, self.areas):
            mask_strips.foreground(probs, index, self.masks[:, rows], self.areas, self.confidence)
            return
        self.masks[:, rows], areas, confidence = foreground(at_queries(probs, index))
        self.areas += areas
        self.confidence += confidence

    def finish(self) -> Instances:
        """Fields pred_masks (0 or 1, [N, H, W]), pred_boxes, scores, pred_classes."""
        mask_scores = self.confidence / (self.areas + 1e-6)
        scores = self.scores * mask_scores[self.ranks]
        order = scores.argsort(descending=True)
        ranks = self.ranks[order]
        result = Instances(self.size)
        result.pred_masks = self._in_order(ranks, torch.bool if self.as_bool else scores.dtype)
        result.pred_boxes = Boxes(tight_boxes(self.masks)[ranks])
        result.scores = scores[order]
        result.pred_classes = self.classes[order]
        return result

    def _in_order(self, ranks: Tensor, dtype: torch.dtype) -> Tensor:
        """The masks of ``ranks`` as numbers 0 or 1 (or False or True) of ``dtype``, [N, H, W]."""
        if dtype == torch.bool or not self.masks.is_cpu or torch.compiler.is_compiling():
            return self.masks.index_select(0, ranks).to(dtype)
        # A few at a time: their bytes are still in the cache when they become numbers.
        numbers = torch.empty((len(ranks), *self.size), dtype=dtype)
        for some, to in zip(ranks.split(4), numbers.split(4)):
            to.copy_(self.masks[some])
        return numbers


def foreground(probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Masks (bool) of probabilities [N, H, W], their areas and sums of probabilities."""
    masks = probs > 0.5
    return masks, masks.sum((1, 2), dtype=torch.int32), F.threshold(probs, 0.5, 0.0).sum((1, 2))


def tight_boxes(masks: Tensor) -> Tensor:
    """Boxes around masks.

    Args:
        masks: bool [N, H, W].

    Returns:
        float32 [N, 4] as (x0, y0, x1, y1), the far edges exclusive; zeros for an empty mask.
    """
    masks = masks.view(torch.uint8)  # whose maximum is much faster than any() of bool
    x0, x1 = _extent(masks.amax(1))
    y0, y1 = _extent(masks.amax(2))
    return torch.stack([x0, y0, x1, y1], 1).float()


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Half-open range of the ones in each row of [N, L]; (0, 0) where there are none."""
    length = occupied.shape[1]
    position = torch.arange(1, length + 1, device=occupied.device)
    stop = (occupied * position).amax(1)
    start = length - (occupied * position.flip(0)).amax(1)
    return start * (stop > 0), stop
