"""Panoptic segmentation from mask classification (MaskFormer, section 3.4)."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from mask2former.ops import mask_strips

from .resize import Size, at_queries

RANK = torch.int16


def winners(probs: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Who wins each pixel.

    Args:
        probs: mask probabilities [N, H, W], N > 0.
        scores: class probabilities [N, 1, 1].

    Returns:
        the winner's rank, int16 [H, W]; whether its own mask is foreground there, bool [H, W]; and
        int64 [3, N]: pixels of the mask, pixels won, and both at once.
    """
    winner = (probs * scores).max(0, keepdim=True).indices  # [1, H, W]
    foreground = probs >= 0.5
    inside = foreground.gather(0, winner)[0]
    ranks = winner.flatten()
    areas = torch.zeros(3, probs.shape[0], dtype=torch.int64, device=probs.device)
    areas[0] = foreground.sum((1, 2), dtype=torch.int32)
    areas[1].scatter_add_(0, ranks, torch.ones_like(ranks))
    areas[2].scatter_add_(0, ranks, inside.flatten().long())
    return winner[0].to(RANK), inside, areas


class PanopticTask:
    """Gives every pixel to the query with the greatest class x mask probability.

    A query keeps the pixels it wins and where its own mask is foreground, unless too small a share
    of its mask is left to it; stuff of one class becomes one segment.

    Args:
        queries: indices of the queries that take part, ascending: their most likely class is an
            object class with a probability above the threshold.
        classes: these classes, on the host; -1 if a query does not take part after all, with a
            score below 0 so that it wins no pixel of another's.
        scores: their probabilities, on the device, [N].
        things: the classes (contiguous ids) that are things.
        overlap_threshold: least share, of the pixels where a mask is foreground, that it must win.
        size: (height, width) of the result.
    """

    def __init__(
        self,
        queries: Sequence[int],
        classes: Sequence[int],
        scores: Tensor,
        *,
        things: Collection[int],
        overlap_threshold: float,
        size: Size,
    ) -> None:
        self.queries = queries
        self.classes = classes
        self.scores = scores[:, None, None]
        self.things = things
        self.overlap_threshold = overlap_threshold
        device, count = scores.device, len(classes)
        self.winner = torch.zeros(size, dtype=RANK, device=device)  # rank in `queries`
        self.inside = torch.zeros(size, dtype=torch.bool, device=device)  # of the winner's mask
        # Rows: pixels of the mask, pixels won, and both at once.
        self.areas = torch.zeros(3, count, dtype=torch.int64, device=device)

    def add(self, rows: slice, probs: Tensor, index: Tensor) -> None:
        """Takes some rows of mask probabilities [Q, rows, W]; ``queries`` are at ``index``, [N]."""
        if not len(self.classes):
            return
        if mask_strips.applies(probs, self.scores):
            maps = self.winner[rows], self.inside[rows]
            mask_strips.winners(probs, index, self.scores.flatten(), *maps, self.areas)
            return
        found = winners(at_queries(probs, index), self.scores)
        self.winner[rows], self.inside[rows], areas = found
        self.areas += areas

    def finish(self, areas: Sequence[Sequence[int]]) -> tuple[Tensor, list[dict]]:
        """Decides which queries become segments.

        Args:
            areas: ``self.areas`` on the host.

        Returns:
            int32 [H, W] of segment ids, 0 where there is none, and for each segment its ``id``,
            ``isthing`` and (contiguous) ``category_id``.
        """
        ids, segments = self._segments(*areas)
        table = torch.tensor([*ids, 0], dtype=torch.int32)
        table = table.to(self.winner.device, non_blocking=True)
        return table[self.winner.long()] * self.inside, segments

    def _segments(
        self, masks: Sequence[int], won: Sequence[int], both: Sequence[int]
    ) -> tuple[list[int], list[dict]]:
        """The segment id of each query (0: none), and what is known of each segment."""
        ids = [0] * len(self.classes)
        segments: list[dict] = []
        stuff: dict[int, int] = {}  # class -> segment id
        for rank, category in enumerate(self.classes):
            if category < 0 or not (won[rank] > 0 and masks[rank] > 0 and both[rank] > 0):
                continue
            if won[rank] / masks[rank] < self.overlap_threshold:
                continue
            is_thing = category in self.things
            if not is_thing and category in stuff:
                ids[rank] = stuff[category]
                continue
            ids[rank] = len(segments) + 1
            if not is_thing:
                stuff[category] = ids[rank]
            segments.append({"id": ids[rank], "isthing": is_thing, "category_id": category})
        return ids, segments
