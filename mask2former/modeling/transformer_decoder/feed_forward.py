"""The perceptron of a transformer layer, and its activations."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "gelu": F.gelu,
    "glu": F.glu,
}


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """The function called ``relu``, ``gelu`` or ``glu``; may overwrite what it is given.

    Raises:
        ValueError: for another name.
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation must be one of {sorted(_ACTIVATIONS)}, not {name!r}")
    return _ACTIVATIONS[name]


def feed_forward(
    x: Tensor,
    linear1: nn.Linear,
    activation: Callable[[Tensor], Tensor],
    dropout: nn.Module,
    linear2: nn.Linear,
) -> Tensor:
    """``linear2(dropout(activation(linear1(x))))``, ``[..., C]`` to ``[..., C']``.

    All tokens are rows of one matrix on the way. With more dimensions a linear layer returns a view
    of its result, and for an activation in place on a view autograd copies the widest tensor of the
    layer three times backward.
    """
    hidden = activation(linear1(x.flatten(0, -2)))
    return linear2(dropout(hidden)).unflatten(0, x.shape[:-1])
