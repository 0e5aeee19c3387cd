"""Gradient clipping as a property of the optimizer: it happens at the start of ``step``."""

from collections.abc import Callable
from enum import Enum

import torch
from torch import Tensor

from detectron2.config import CfgNode

__all__ = ["GradientClipType", "maybe_add_gradient_clipping"]


class GradientClipType(Enum):
    """Values of ``SOLVER.CLIP_GRADIENTS.CLIP_TYPE``; both clip each parameter on its own."""

    VALUE = "value"
    NORM = "norm"


def _clipper(cfg: CfgNode) -> Callable[[Tensor], None]:
    """The function that clips one parameter's gradient, from ``cfg`` (SOLVER.CLIP_GRADIENTS)."""
    limit, norm_type = cfg.CLIP_VALUE, cfg.NORM_TYPE
    if GradientClipType(cfg.CLIP_TYPE) is GradientClipType.VALUE:
        return lambda p: torch.nn.utils.clip_grad_value_(p, limit)
    return lambda p: torch.nn.utils.clip_grad_norm_(p, limit, norm_type)


def _with_gradient_clip(
    base: type[torch.optim.Optimizer], clip: Callable[[Tensor], None]
) -> type[torch.optim.Optimizer]:
    """A subclass of an optimizer that clips every gradient before each step."""

    def step(self, closure: Callable | None = None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    clip(parameter)
        return super(clipping, self).step(closure)

    clipping = type(f"{base.__name__}WithGradientClip", (base,), {"step": step})
    return clipping


def maybe_add_gradient_clipping(
    cfg: CfgNode, optimizer: type[torch.optim.Optimizer] | torch.optim.Optimizer
) -> type[torch.optim.Optimizer] | torch.optim.Optimizer:
    """Adds the clipping of ``cfg.SOLVER.CLIP_GRADIENTS`` to an optimizer, if it is enabled.

    Args:
        optimizer: a class (a subclass is returned) or an object (its class is swapped).

    Raises:
        ValueError: CLIP_TYPE is neither "value" nor "norm".
    """
    clip_cfg = cfg.SOLVER.CLIP_GRADIENTS
    if not clip_cfg.ENABLED:
        return optimizer
    try:
        clip = _clipper(clip_cfg)
    except ValueError as error:
        known = ", ".join(t.value for t in GradientClipType)
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE '{clip_cfg.CLIP_TYPE}' is not one of: {known}"
        ) from error
    if isinstance(optimizer, torch.optim.Optimizer):
        optimizer.__class__ = _with_gradient_clip(type(optimizer), clip)
        return optimizer
    return _with_gradient_clip(optimizer, clip)
