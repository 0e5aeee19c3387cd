"""Semantic segmentation from mask classification (MaskFormer, section 3.4)."""

import torch
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
        width = probs.shape[2]
        here = self.scores.flatten(1)[:, rows.start * width : rows.stop * width]
        torch.mm(self.by_class, probs.flatten(1), out=here)  # [K, rows * W]

    def finish(self) -> Tensor:
        """float [K, H, W]."""
        return self.scores
