"""Calls the compiled kernels of multi-scale deformable attention with tensors.

Everything here works on checked arguments and on one device; autograd, autocast and the choice of
implementation are above (``ms_deform_attn_op.py``). ``shapes`` is flat: h0, w0, h1, w1, ...
Gradients come in the dtype of what they belong to.
"""

from __future__ import annotations

import ctypes
import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from mask2former.ops.libraries import DTYPES, MS_DEFORM_ATTN, load


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums, locations and attention weights are kept in for values of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _int64s(numbers: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _sizes(value: Tensor, shapes: Sequence[int], attention: Tensor) -> ctypes.Array:
    return _int64s((*value.shape, attention.shape[1], *attention.shape[3:], *shapes))


# ------------------------------------------------------------------ CPU


def _packed(value: Tensor, attention: Tensor) -> Tensor:
    """``value`` as the CPU kernel likes it: same shape, but each head's values lie together.

    The kernel takes any layout. In this one neighbouring pixels of a head are neighbours in memory:
    they fill whole cache lines, and a map's surroundings stay in a core's own cache. 16-bit values
    become float32 on the way.
    """
    value = value.to(accumulation_dtype(value.dtype))
    rows_read = 4 * math.prod((attention.shape[1], *attention.shape[3:]))
    if rows_read < 4 * value.shape[1]:  # few queries: the copy would cost more than it saves
        return value.contiguous()
    return value.transpose(1, 2).contiguous().transpose(1, 2)


def cpu_forward(
    value: Tensor, shapes: Sequence[int], locations: Tensor, attention: Tensor
) -> Tensor:
    """``[B, Q, H*D]``."""
    packed = _packed(value, attention)
    locations, attention = locations.contiguous(), attention.contiguous()
    batch, queries, heads = attention.shape[:3]
    output = packed.new_empty(batch, queries, heads * value.shape[3])
    load("cpu").ms_deform_attn_cpu_forward(
        DTYPES[packed.dtype],
        _sizes(value, shapes, attention),
        _int64s(packed.stride()),
        packed.data_ptr(),
        locations.data_ptr(),
        attention.data_ptr(),
        output.data_ptr(),
        torch.get_num_threads(),
    )
    return output.to(value.dtype)


def cpu_backward(
    grad_output: Tensor, value: Tensor, shapes: Sequence[int], locations: Tensor, attention: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and attention."""
    packed = _packed(value, attention)
    locations, attention = locations.contiguous(), attention.contiguous()
    grad_output = grad_output.to(packed.dtype).contiguous()
    batch, positions, heads, depth = value.shape
    threads = torch.get_num_threads()
    # A head and level is one task. Many cores share the queries out as well, each part with its own
    # sum for the values.
    splits = math.ceil(threads / max(1, batch * heads * attention.shape[3]))
    grad_value = packed.new_zeros(splits, batch, heads, positions, depth)
    grad_locations, grad_attention = torch.empty_like(locations), torch.empty_like(attention)
    load("cpu").ms_deform_attn_cpu_backward(
        DTYPES[packed.dtype],
        _sizes(value, shapes, attention),
        _int64s(packed.stride()),
        packed.data_ptr(),
        locations.data_ptr(),
        attention.data_ptr(),
        grad_output.data_ptr(),
        grad_value.data_ptr(),
        grad_locations.data_ptr(),
        grad_attention.data_ptr(),
        splits,
        threads,
    )
    grad_value = grad_value[0] if splits == 1 else grad_value.sum(0)
    return grad_value.transpose(1, 2).to(value.dtype).contiguous(), grad_locations, grad_attention


# ------------------------------------------------------------------ CUDA


def cuda_forward(
    value: Tensor,
    shapes: Sequence[int],
    locations: Tensor,
    attention: Tensor,
    op: str = MS_DEFORM_ATTN,
) -> Tensor:
    """``[B, Q, H*D]``; ``op`` names the library, which benchmarks choose."""
    value, locations, attention = value.contiguous(), locations.contiguous(), attention.contiguous()
    batch, queries, heads = attention.shape[:3]
    output = value.new_empty(batch, queries, heads * value.shape[3])
    _launch("forward", value, shapes, attention, (value, locations, attention, output), op)
    return output


def cuda_backward(
    grad_output: Tensor,
    value: Tensor,
    shapes: Sequence[int],
    locations: Tensor,
    attention: Tensor,
    op: str = MS_DEFORM_ATTN,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and attention; those of values are added in varying order.

    Raises:
        RuntimeError: if torch was told to use deterministic algorithms only.
    """
    if torch.are_deterministic_algorithms_enabled():
        message = (
            "ms_deform_attn's backward pass on CUDA is not deterministic (atomic additions); run "
            "without torch.use_deterministic_algorithms, or with warn_only=True"
        )
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError(message)
        warnings.warn(message, stacklevel=2)
    value, locations, attention = value.contiguous(), locations.contiguous(), attention.contiguous()
    grad_output = grad_output.to(locations.dtype).contiguous()
    # Many samples add to one value: the sum is kept in full precision and rounded once.
    grad_value = torch.zeros_like(value, dtype=locations.dtype)
    grad_locations, grad_attention = torch.empty_like(locations), torch.empty_like(attention)
    tensors = (value, locations, attention, grad_output, grad_value, grad_locations, grad_attention)
    _launch("backward", value, shapes, attention, tensors, op)
    return grad_value.to(value.dtype), grad_locations, grad_attention


def _launch(
    name: str,
    value: Tensor,
    shapes: Sequence[int],
    attention: Tensor,
    tensors: Sequence[Tensor],
    op: str,
) -> None:
    """Queues a kernel on the current stream of the tensors' device."""
    library, device = load("cuda", op), value.device
    with torch.cuda.device(device):
        status = getattr(library, f"{op}_cuda_{name}")(
            DTYPES[value.dtype],
            _sizes(value, shapes, attention),
            *[tensor.data_ptr() for tensor in tensors],
            device.index,
            torch.cuda.current_stream(device).cuda_stream,
        )
    if status:
        message = library.mask2former_cuda_error(status).decode()
        raise RuntimeError(
            f"{op} {name} on {device} failed: {message} (CUDA error {status}; "
            f"value {tuple(value.shape)} {value.dtype}, attention {tuple(attention.shape)})"
        )
