"""Semantic segmentation from mask classification (MaskFormer, section 3.4)."""

from torch import Tensor

from .resize import Size


class SemanticTask:
    """Per pixel and class, the sum over queries of class probability x mask probability.

    Args:
        class_probs: [Q, K], without "no object".
        size: (height, width) of the result.
    """

    queries = None  # all of them

    def __init__(self, class_probs: Tensor, size: Size) -> None:
        self.by_class = class_probs.T.contiguous()  # [K, Q]
        self.scores = class_probs.new_empty(len(self.by_class), *size)  # [K, H, W]

    def add(self, rows: slice, probs: Tensor) -> None:
        """Takes some rows of all mask probabilities, [Q, rows, W]."""
        scores = self.by_class @ probs.flatten(1)  # [K, rows * W]
        self.scores[:, rows] = scores.unflatten(1, probs.shape[1:])

    def finish(self) -> Tensor:
        """float [K, H, W]."""
        return self.scores
