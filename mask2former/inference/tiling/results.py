"""Masks of whole images that are no stack of full-size maps."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from .plan import Box


class BoxedMasks:
    """Stands where ``pred_masks`` [N, H, W] is expected; keeps only what lies inside each box.

    Indexing with a number makes the full mask (float 0 or 1), as does iterating; with a slice, a
    list or a tensor it gives a part of the masks, so ``Instances`` can be filtered and sorted.
    """

    def __init__(
        self, boxes: Sequence[Box], masks: Sequence[np.ndarray], size: tuple[int, int]
    ) -> None:
        self._boxes, self._masks = list(boxes), list(masks)
        self._size = size

    @property
    def shape(self) -> torch.Size:
        """(N, H, W)."""
        return torch.Size((len(self._masks), *self._size))

    @property
    def device(self) -> torch.device:
        """Always the CPU."""
        return torch.device("cpu")

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, index: int | slice | list | Tensor) -> "Tensor | BoxedMasks":
        if isinstance(index, int | np.integer):
            full = torch.zeros(self._size)
            rows, columns = self._boxes[index].inside(Box(0, self._size[0], 0, self._size[1]))
            full[rows, columns] = torch.from_numpy(self._masks[index]).float()
            return full
        if isinstance(index, slice):
            chosen = range(len(self))[index]
        else:
            chosen = torch.arange(len(self))[torch.as_tensor(index).cpu()].tolist()
        boxes, masks = [self._boxes[i] for i in chosen], [self._masks[i] for i in chosen]
        return BoxedMasks(boxes, masks, self._size)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def to(self, *args, **kwargs) -> "BoxedMasks":
        """Itself: masks stay on the CPU."""
        return self

    def cpu(self) -> "BoxedMasks":
        """Itself."""
        return self
