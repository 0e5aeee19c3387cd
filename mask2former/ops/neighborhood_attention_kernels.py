"""Calls the compiled kernels of neighbourhood attention with tensors.

Everything here works on checked arguments and on one device; autograd, autocast and the choice of
implementation are above (``neighborhood_attention_op.py``).
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mask2former.ops.kernels import accumulation_dtype
from mask2former.ops.libraries import DTYPES, NEIGHBORHOOD_ATTENTION, load

NAME = NEIGHBORHOOD_ATTENTION
# The CPU kernel works in full vectors of the widest kind.
CPU_DEPTH_BYTES = 64


def _int64s(numbers: Sequence[int]) -> ctypes.Array:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _strides(*maps: Tensor) -> ctypes.Array:
    return _int64s([stride for x in maps for stride in x.stride()[:4]])


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def channels_beside_heads(like: Tensor, depth: int, dtype: torch.dtype) -> Tensor:
    """An empty ``[B, heads, H, W, depth]`` that lies in memory as ``[B, H, W, heads * depth]``.

    A linear layer takes it as it is.
    """
    batch, heads, height, width = like.shape[:4]
    memory = like.new_empty(batch, height, width, heads, depth, dtype=dtype)
    return memory.permute(0, 3, 1, 2, 4)


def _wide(x: Tensor) -> Tensor:
    """In the dtype of the sums, channels together in full vectors; a copy only where needed."""
    x = x.to(accumulation_dtype(x.dtype))
    missing = -x.shape[-1] % (CPU_DEPTH_BYTES // x.element_size())
    if missing:
        x = F.pad(x, (0, missing))
    return x if x.stride(-1) == 1 else x.contiguous()


# ------------------------------------------------------------------ CPU


def _roomy(rpb: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The bias in ``dtype``, flat, with a vector's room behind its end."""
    return None if rpb is None else F.pad(rpb.to(dtype).flatten(), (0, CPU_DEPTH_BYTES))


def cpu_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    dilation: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """``[B, heads, H, W, D]``, and the logarithm of the softmax's denominators."""
    q, k, v = _wide(query), _wide(key).contiguous(), _wide(value).contiguous()
    bias = _roomy(rpb, q.dtype)
    output = channels_beside_heads(query, q.shape[-1], q.dtype)
    logsumexp = q.new_empty(q.shape[:4])
    load("cpu", NAME).neighborhood_attention_cpu_forward(
        DTYPES[q.dtype],
        _int64s((*q.shape, kernel_size, dilation)),
        _strides(q, output),
        scale,
        *map(_pointer, (q, k, v, bias, output, logsumexp)),
        torch.get_num_threads(),
    )
    if output.shape != query.shape or output.dtype != query.dtype:
        fitting = channels_beside_heads(query, query.shape[-1], query.dtype)
        output = fitting.copy_(output[..., : query.shape[-1]])
    return output, logsumexp


def cpu_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rpb: Tensor | None,
    output: Tensor,
    logsumexp: Tensor,
    kernel_size: int,
    dilation: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and bias (an empty tensor where there is none)."""
    q, k, v = _wide(query), _wide(key).contiguous(), _wide(value).contiguous()
    bias = _roomy(rpb, q.dtype)
    grad_output = _wide(grad_output)
    delta = _delta(grad_output, output)
    grad_query = channels_beside_heads(query, q.shape[-1], q.dtype)
    grad_key, grad_value = torch.zeros_like(k), torch.zeros_like(v)
    grad_bias = None if rpb is None else q.new_zeros(rpb.shape)
    tensors = (q, k, v, bias, logsumexp, delta, grad_output)
    load("cpu", NAME).neighborhood_attention_cpu_backward(
        DTYPES[q.dtype],
        _int64s((*q.shape, kernel_size, dilation)),
        _strides(q, grad_output, grad_query),
        scale,
        *map(_pointer, (*tensors, grad_query, grad_key, grad_value, grad_bias)),
        torch.get_num_threads(),
    )
    depth = query.shape[-1]
    grads = [
        grad[..., :depth].to(query.dtype).contiguous()
        for grad in (grad_query, grad_key, grad_value)
    ]
    return *grads, query.new_empty(0) if rpb is None else grad_bias.to(rpb.dtype)


def _delta(grad_output: Tensor, output: Tensor) -> Tensor:
    """What the softmax's gradient subtracts from every row: ``[B, heads, H, W]``."""
    wide = accumulation_dtype(grad_output.dtype)
    grad_output = grad_output[..., : output.shape[-1]].to(wide)
    return (grad_output * output.to(wide)).sum(-1).contiguous()


# ------------------------------------------------------------------ CUDA


def cuda_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    dilation: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """``[B, heads, H, W, D]``, and the logarithm of the softmax's denominators."""
    q, k, v = query.contiguous(), key.contiguous(), value.contiguous()
    wide = accumulation_dtype(q.dtype)
    bias = None if rpb is None else rpb.to(wide).contiguous()
    output = channels_beside_heads(query, query.shape[-1], query.dtype)
    logsumexp = q.new_empty(q.shape[:4], dtype=wide)
    _launch("forward", q, kernel_size, dilation, scale, (q, k, v, bias, output, logsumexp))
    return output, logsumexp


def cuda_backward(
    grad_output: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rpb: Tensor | None,
    output: Tensor,
    logsumexp: Tensor,
    kernel_size: int,
    dilation: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value and bias; those of the bias are added in varying order.

    Raises:
        RuntimeError: if there is a bias and torch was told to use deterministic algorithms only.
    """
    if rpb is not None and torch.are_deterministic_algorithms_enabled():
        message = (
            "the gradient of neighborhood_attention's bias on CUDA is not deterministic (atomic "
            "additions); run without torch.use_deterministic_algorithms, or with warn_only=True"
        )
        if not torch.is_deterministic_algorithms_warn_only_enabled():
            raise RuntimeError(message)
        warnings.warn(message, stacklevel=2)
    q, k, v = query.contiguous(), key.contiguous(), value.contiguous()
    wide = accumulation_dtype(q.dtype)
    bias = None if rpb is None else rpb.to(wide).contiguous()
    grad_output = grad_output.to(q.dtype).contiguous()
    delta = _delta(grad_output, output)
    grads = [torch.empty_like(x) for x in (q, k, v)]
    grad_bias = None if bias is None else torch.zeros_like(bias)
    tensors = (q, k, v, bias, logsumexp, delta, grad_output, *grads, grad_bias)
    _launch("backward", q, kernel_size, dilation, scale, tensors)
    return *grads, query.new_empty(0) if rpb is None else grad_bias.to(rpb.dtype)


def _launch(
    name: str,
    query: Tensor,
    kernel_size: int,
    dilation: int,
    scale: float,
    tensors: Sequence[Tensor | None],
) -> None:
    """Queues kernels on the current stream of the tensors' device."""
    library, device = load("cuda", NAME), query.device
    with torch.cuda.device(device):
        status = getattr(library, f"neighborhood_attention_cuda_{name}")(
            DTYPES[query.dtype],
            _int64s((*query.shape, kernel_size, dilation)),
            scale,
            *map(_pointer, tensors),
            device.index,
            torch.cuda.current_stream(device).cuda_stream,
        )
    if status:
        message = library.mask2former_cuda_error(status).decode()
        raise RuntimeError(
            f"neighborhood_attention {name} on {device} failed: {message} (CUDA error {status}; "
            f"query {tuple(query.shape)} {query.dtype}, kernel {kernel_size}, dilation {dilation})"
        )
