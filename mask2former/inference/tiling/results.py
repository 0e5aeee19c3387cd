"""Masks of whole images that are no stack of full-size maps."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .plan import Box


class BoxedMasks:
    """Stands where ``pred_masks`` [N, H, W] is expected; keeps only what lies inside each box.

    Indexing with a number makes the full mask (float 0 or 1), as does iterating; with a slice, a
    list or a tensor it gives a part of the masks, so ``Instances`` can be filtered and sorted.
    Evaluators go through :meth:`numpy`, one mask at a time; only ``numpy.asarray`` makes the stack.
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
            return torch.from_numpy(self._full(index)).float()
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

    def numpy(self) -> "BoxedArrays":
        """The same as a sequence of bool arrays."""
        return BoxedArrays(self._boxes, self._masks, self._size)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All full masks at once, bool [N, H, W]."""
        return np.asarray(self.numpy(), dtype)

    def _full(self, index: int) -> np.ndarray:
        full = np.zeros(self._size, bool)
        full[self._boxes[index].inside(Box(0, self._size[0], 0, self._size[1]))] = self._masks[
            index
        ]
        return full


class BoxedArrays(BoxedMasks):
    """:class:`BoxedMasks` where a bool array [N, H, W] is expected that is gone through by mask."""

    dtype = np.dtype(bool)

    @property
    def nbytes(self) -> int:
        """Of what is kept."""
        return sum(mask.nbytes for mask in self._masks)

    def __getitem__(self, index: int) -> np.ndarray:
        """The full mask, bool [H, W]."""
        return self._full(range(len(self))[index])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All full masks at once, bool [N, H, W]."""
        stack = np.zeros(self.shape, bool)
        for full, mask in zip(stack, self):
            full[...] = mask
        return stack if dtype is None else stack.astype(dtype)
