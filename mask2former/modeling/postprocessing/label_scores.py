"""Semantic results that are labels, where K full-size maps of scores would fill the memory."""

import torch
from torch import Tensor


class LabelScores:
    """Stands where ``sem_seg`` [K, H, W] is expected when only the best class is known.

    What evaluators and drawing ask for works: ``argmax(dim=0)``, ``shape``, ``to``, ``cpu``.
    """

    def __init__(self, labels: Tensor, num_classes: int) -> None:
        """
        Args:
            labels: int16 or int64 [H, W].
        """
        self._labels = labels
        self.shape = torch.Size((num_classes, *labels.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def argmax(self, dim: int = 0, keepdim: bool = False) -> Tensor:
        """The best class, int64 [H, W], or [1, H, W].

        Raises:
            ValueError: over another dimension.
        """
        if dim != 0:
            raise ValueError("only the best class of each pixel is known: use dim=0")
        labels = self._labels.long()
        return labels[None] if keepdim else labels

    def to(self, *args, **kwargs) -> "LabelScores":
        """The same on another device."""
        return LabelScores(self._labels.to(*args, **kwargs), self.shape[0])

    def cpu(self) -> "LabelScores":
        """The same on the CPU."""
        return self.to("cpu")
