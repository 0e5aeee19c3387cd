"""The best class of each pixel, mostly without the scores of those that cannot win."""

import torch
from torch import Tensor

from mask2former.ops import mask_strips

# Classes that are looked at first: those that all queries together believe in most.
FIRST = 32
# A class is left out where another one leads by this factor: more than the rounding of the sums.
SLACK = 1.0001


class BestClass:
    """``argmax`` over classes of ``by_class @ probs``, exactly, with fewer products on a CPU.

    The compiled kernel, ``mask_strips.BestClass``, has a tighter bound, pixel by pixel.

    As mask probabilities are at most 1, a class never scores more than the sum of its probabilities
    over the queries. Where one of the first classes scores more than all of the rest could, the
    rest need not be computed. (On a GPU, finding these pixels would make the host wait.)

    Args:
        by_class: class probabilities [K, Q], not negative.
    """

    def __init__(self, by_class: Tensor) -> None:
        self.by_class = by_class
        self.kernel = mask_strips.BestClass(by_class) if mask_strips.applies(by_class) else None
        self.first = None
        if self.kernel or by_class.device.type != "cpu" or len(by_class) < 2 * FIRST:
            return
        most, order = by_class.sum(1).sort(descending=True)  # [K]
        self.rest_reaches = most[FIRST].item() * SLACK
        self.first = order[:FIRST].sort().values  # of equal scores, the lower class wins, as always
        self.first_by_class = by_class[self.first]

    def __call__(self, probs: Tensor) -> Tensor:
        """Mask probabilities [Q, P] in [0, 1] to classes, int64 (or, compiled, int16) [P]."""
        if self.kernel and mask_strips.applies(probs):
            best = torch.empty(probs.shape[1], dtype=torch.int16)
            self.kernel(probs, best)
            return best
        if self.first is None:
            return (self.by_class @ probs).max(0).indices
        leading, rank = (self.first_by_class @ probs).max(0)
        best = self.first[rank]
        open_ = (leading <= self.rest_reaches).nonzero().squeeze(1)
        if len(open_) > 0.6 * len(best):
            return (self.by_class @ probs).max(0).indices
        if len(open_):
            best[open_] = (self.by_class @ probs[:, open_]).max(0).indices
        return best
