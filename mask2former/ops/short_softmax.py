"""Softmax over a last dimension of a few entries, as over the samples of deformable attention.

PyTorch's CPU kernel takes rows that are shorter than a vector register one entry at a time.
Written as a few passes over the whole tensor, most of the work is done by full vectors.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.ops.implementation import wants_reference

# From 16 entries on (floats in an AVX-512 register) PyTorch's own kernel is the faster one.
LONGEST = 15


def short_softmax(x: Tensor) -> Tensor:
    """``softmax(x, dim=-1)``, faster on a CPU where the last dimension is short.

    Args:
        x: floating; any shape.

    Returns:
        the same shape and, outside autocast, dtype.
    """
    quicker = (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and 0 < x.shape[-1] <= LONGEST
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not wants_reference()
    )
    if not quicker:
        return F.softmax(x, dim=-1)
    return _ShortSoftmax.apply(x)


class _ShortSoftmax(torch.autograd.Function):
    """In passes over the whole tensor; keeps its output only."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        y = (x - x.amax(-1, keepdim=True)).exp_()
        return y.div_(y.sum(-1, keepdim=True))

    @staticmethod
    def setup_context(ctx, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        weighted = grad * y
        return weighted - y * weighted.sum(-1, keepdim=True)
