"""Cross entropy of the hardest pixels."""

import torch
from torch import nn

from detectron2._missing import missing_getattr

__all__ = ["DeepLabCE"]


class DeepLabCE(nn.Module):
    """Pixel-wise cross entropy over the share of pixels with the largest loss.

    Args:
        ignore_label: label without loss.
        top_k_percent_pixels: share of all pixels, in (0, 1]; 1 is the plain mean.
        weight: of the classes, [C].
    """

    def __init__(
        self,
        ignore_label: int = -1,
        top_k_percent_pixels: float = 1.0,
        weight: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.top_k_percent_pixels = top_k_percent_pixels
        self.ignore_label = ignore_label
        self.criterion = nn.CrossEntropyLoss(
            weight=weight, ignore_index=ignore_label, reduction="none"
        )

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Scalar loss of logits [N, C, H, W] and labels [N, H, W], pixels weighted by [N, H, W]."""
        losses = self.criterion(logits, labels)
        losses = (losses if weights is None else losses * weights).flatten()
        if self.top_k_percent_pixels < 1.0:
            losses = losses.topk(int(self.top_k_percent_pixels * losses.numel())).values
        return losses.mean()


__getattr__ = missing_getattr(__name__)
