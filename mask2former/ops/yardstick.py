"""What our CUDA kernels are measured with: the published algorithm, and the memory's own speed.

Used by benchmarks only. The published algorithm is that of Deformable DETR (Zhu et al., 2021), one
thread a number of the output, see csrc/ms_deform_attn_yardstick_cuda.cu; ``python build_ops.py
--yardstick`` builds it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from mask2former.ops import kernels
from mask2former.ops.libraries import MS_DEFORM_ATTN_YARDSTICK


class _PublishedAlgorithm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor, shapes: tuple, locations: Tensor, attention: Tensor) -> Tensor:
        ctx.save_for_backward(value, locations, attention)
        ctx.shapes = shapes
        return kernels.cuda_forward(value, shapes, locations, attention, MS_DEFORM_ATTN_YARDSTICK)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        value, locations, attention = ctx.saved_tensors
        of_value, of_locations, of_attention = kernels.cuda_backward(
            grad, value, ctx.shapes, locations, attention, MS_DEFORM_ATTN_YARDSTICK
        )
        return of_value, None, of_locations, of_attention


def published_ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    level_start_index: None,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """As :func:`~mask2former.ops.ms_deform_attn`, by the published algorithm; float32 on CUDA.

    Raises:
        MissingLibrary: it was not built.
        RuntimeError: another dtype, or more channels than a block has threads.
    """
    flat = tuple(side for shape in spatial_shapes for side in shape)
    return _PublishedAlgorithm.apply(value, flat, sampling_locations, attention_weights)


def least_bytes(arguments: Sequence, backward: bool) -> int:
    """Bytes that have to move through memory if caches were perfect.

    Forward: values, locations and weights are read once, the output is written. Backward: all of
    these and the output's gradient are read, three gradients are written; that of values is zeroed
    first and then read and written (in float32).

    Args:
        arguments: of :func:`~mask2former.ops.ms_deform_attn`.
        backward: count both passes.
    """
    value, _, _, locations, attention = arguments
    inputs = sum(tensor.numel() * tensor.element_size() for tensor in (value, locations, attention))
    outputs = attention.shape[0] * attention.shape[1] * value.shape[2] * value.shape[3]
    forward = inputs + outputs * value.element_size()
    if not backward:
        return forward
    gradients = 4 * (3 * value.numel() + locations.numel() + attention.numel())
    return forward + inputs + 4 * outputs + gradients


def copy_bandwidth(device: str, megabytes: int = 256, repeats: int = 20) -> float:
    """Bytes a second, read and written, of a large copy in the device's memory."""
    source = torch.ones(megabytes << 18, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    times = [seconds_of(lambda: target.copy_(source), source.device) for _ in range(repeats)]
    return 2 * source.numel() * source.element_size() / min(times)


def seconds_of(step, device: torch.device) -> float:
    """Time of one step: on a GPU between two events of its stream, else of the clock."""
    if device.type != "cuda":
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    step()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3
