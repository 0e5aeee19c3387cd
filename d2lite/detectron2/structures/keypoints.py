"""Keypoints of objects (as far as loading and drawing annotations need them)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from detectron2._missing import missing_getattr

__all__ = ["Keypoints"]


class Keypoints:
    """N objects with K keypoints each: float32 [N, K, 3] as (x, y, visibility).

    Visibility follows COCO: 0 not labelled, 1 labelled but hidden, 2 visible.
    """

    def __init__(self, keypoints: torch.Tensor | np.ndarray | list) -> None:
        tensor = torch.as_tensor(keypoints, dtype=torch.float32)
        if tensor.dim() != 3 or tensor.shape[2] != 3:
            raise AssertionError(f"Keypoints need a tensor [N, K, 3], not {list(tensor.shape)}")
        self.tensor = tensor

    def __len__(self) -> int:
        return self.tensor.size(0)

    def to(self, *args: Any, **kwargs: Any) -> Keypoints:
        return type(self)(self.tensor.to(*args, **kwargs))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def __getitem__(self, item: int | slice | torch.Tensor) -> Keypoints:
        if isinstance(item, int):
            return Keypoints(self.tensor[item][None])
        return Keypoints(self.tensor[item])

    def __repr__(self) -> str:
        return f"Keypoints(num_instances={len(self)})"

    @staticmethod
    def cat(keypoints_list: list[Keypoints]) -> Keypoints:
        """Concatenate a non-empty list."""
        if not keypoints_list:
            raise AssertionError("Keypoints.cat needs a non-empty list")
        return type(keypoints_list[0])(torch.cat([k.tensor for k in keypoints_list], dim=0))


__getattr__ = missing_getattr(__name__)
