"""torch layers and functions under the names and with the extras that detectron2 gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from detectron2._missing import missing_getattr

__all__ = [
    "BatchNorm2d",
    "Conv2d",
    "ConvTranspose2d",
    "Linear",
    "cat",
    "cross_entropy",
    "empty_input_loss_func_wrapper",
    "interpolate",
    "move_device_like",
    "nonzero_tuple",
    "shapes_to_tensor",
]

# torch has handled empty batches in these for years; only the names are needed.
ConvTranspose2d = torch.nn.ConvTranspose2d
BatchNorm2d = torch.nn.BatchNorm2d
Linear = torch.nn.Linear
interpolate = F.interpolate


class Conv2d(torch.nn.Conv2d):
    """``nn.Conv2d`` followed by an optional normalisation and an optional activation.

    Parameter names: ``weight``, ``bias`` and ``norm.*``.
    """

    def __init__(
        self,
        *args: Any,
        norm: torch.nn.Module | None = None,
        activation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            norm: applied after the convolution.
            activation: applied last; any callable.
            args, kwargs: as for ``nn.Conv2d``.
        """
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C_in, H, W] -> [N, C_out, H', W']"""
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        if self.activation is not None:
            x = self.activation(x)
        return x


def cat(tensors: list[torch.Tensor], dim: int = 0) -> torch.Tensor:
    """``torch.cat`` without the copy when there is a single tensor."""
    if not isinstance(tensors, (list, tuple)):
        raise AssertionError(f"cat needs a list or tuple of tensors, not {type(tensors)}")
    return tensors[0] if len(tensors) == 1 else torch.cat(tensors, dim)


def empty_input_loss_func_wrapper(loss_func: Callable) -> Callable:
    """Make a loss give 0 (with a gradient path) instead of NaN when there is nothing to average."""

    def wrapped(
        input: torch.Tensor, target: torch.Tensor, *, reduction: str = "mean", **kwargs: Any
    ) -> torch.Tensor:
        if target.numel() == 0 and reduction == "mean":
            return input.sum() * 0.0
        return loss_func(input, target, reduction=reduction, **kwargs)

    return wrapped


cross_entropy = empty_input_loss_func_wrapper(F.cross_entropy)


def nonzero_tuple(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """``x.nonzero(as_tuple=True)``"""
    return x.nonzero(as_tuple=True)


def shapes_to_tensor(x: list[Any], device: torch.device | None = None) -> torch.Tensor:
    """Sizes (ints, or 0-d tensors while tracing) as an integer tensor."""
    if any(isinstance(size, torch.Tensor) for size in x):
        return torch.stack([torch.as_tensor(size, device=device) for size in x])
    return torch.as_tensor(x, device=device)


def move_device_like(src: torch.Tensor, dst: torch.Tensor) -> torch.Tensor:
    """``src`` on the device of ``dst`` (the dtype is kept)."""
    return src.to(dst.device)


__getattr__ = missing_getattr(__name__)
