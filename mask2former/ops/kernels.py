"""Calls the compiled kernels of multi-scale deformable attention with tensors.

Everything here works on checked arguments and on one device; autograd, autocast and the choice of
implementation are above (``ms_deform_attn_op.py``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from mask2former.ops.libraries import DTYPES, load


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """What sums, locations and attention weights are kept in for values of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def forward(value: Tensor, shapes: Sequence[int], locations: Tensor, attention: Tensor) -> Tensor:
    """``[B, Q, H*D]``; ``shapes`` is flat: h0, w0, h1, w1, ..."""
    value, locations, attention = value.contiguous(), locations.contiguous(), attention.contiguous()
    batch, queries, heads = attention.shape[:3]
    output = value.new_empty(batch, queries, heads * value.shape[3])
    _call("forward", value, shapes, attention, (value, locations, attention, output))
    return output


def backward(
    grad_output: Tensor, value: Tensor, shapes: Sequence[int], locations: Tensor, attention: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, locations and attention, each in the dtype of its input."""
    value, locations, attention = value.contiguous(), locations.contiguous(), attention.contiguous()
    # Many samples add to one value: the sum is kept in full precision and rounded once.
    grad_output = grad_output.to(locations.dtype).contiguous()
    grad_value = torch.zeros_like(value, dtype=locations.dtype)
    grad_locations, grad_attention = torch.empty_like(locations), torch.empty_like(attention)
    tensors = (value, locations, attention, grad_output, grad_value, grad_locations, grad_attention)
    _call("backward", value, shapes, attention, tensors)
    return grad_value.to(value.dtype), grad_locations, grad_attention


def _call(
    name: str, value: Tensor, shapes: Sequence[int], attention: Tensor, tensors: Sequence[Tensor]
) -> None:
    batch, positions, heads, depth = value.shape
    queries, levels, points = attention.shape[1], *attention.shape[3:]
    sizes = (batch, positions, heads, depth, queries, levels, points, *shapes)
    sizes = (ctypes.c_int64 * len(sizes))(*sizes)
    pointers = [tensor.data_ptr() for tensor in tensors]
    device = value.device
    library = load(device.type)
    function = getattr(library, f"ms_deform_attn_{device.type}_{name}")
    dtype = DTYPES[value.dtype]
    if device.type == "cpu":
        function(dtype, sizes, *pointers, torch.get_num_threads())
        return
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream(device).cuda_stream
        status = function(dtype, sizes, *pointers, device.index, stream)
    if status:
        message = library.mask2former_cuda_error(status).decode()
        raise RuntimeError(
            f"ms_deform_attn {name} on {device} failed: {message} (CUDA error {status}; "
            f"value {tuple(value.shape)} {value.dtype}, attention {tuple(attention.shape)})"
        )
