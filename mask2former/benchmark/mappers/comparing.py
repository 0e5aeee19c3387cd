"""Whether two mapped samples are the same, bit for bit, and where they first differ."""

from typing import Any

import numpy as np
import torch

from detectron2.structures import Boxes, Instances


def first_difference(one: Any, other: Any, where: str = "") -> str | None:
    """Compares nested results of mappers.

    Args:
        one, other: dicts, lists, tensors, arrays, Instances, Boxes or plain values.

    Returns:
        a sentence about the first difference, or None.
    """
    if isinstance(one, Instances) and isinstance(other, Instances):
        if one.image_size != other.image_size:
            return f"{where}.image_size: {one.image_size} and {other.image_size}"
        return first_difference(one.get_fields(), other.get_fields(), where)
    if isinstance(one, Boxes) and isinstance(other, Boxes):
        return first_difference(one.tensor, other.tensor, where)
    if type(one) is not type(other):
        return f"{where}: {type(one).__name__} and {type(other).__name__}"
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{where}: only one has {sorted(map(str, one.keys() ^ other.keys()))}"
        pairs = ((f"{where}.{key}".lstrip("."), one[key], other[key]) for key in one)
    elif isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return f"{where}: {len(one)} and {len(other)} entries"
        pairs = ((f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(one, other)))
    elif isinstance(one, (torch.Tensor, np.ndarray)):
        return _tensor_difference(torch.as_tensor(one), torch.as_tensor(other), where)
    else:
        return None if one == other else f"{where}: {one!r} and {other!r}"
    return next((d for name, a, b in pairs if (d := first_difference(a, b, name))), None)


def _tensor_difference(one: torch.Tensor, other: torch.Tensor, where: str) -> str | None:
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{where}: {one.dtype} {tuple(one.shape)} and {other.dtype} {tuple(other.shape)}"
    different = int((one != other).sum())
    return f"{where}: {different} of {one.numel()} values differ" if different else None
