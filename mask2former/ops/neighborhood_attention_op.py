"""The op behind the compiled kernels of neighbourhood attention.

``torch.ops.mask2former.neighborhood_attention`` has a fake kernel, autograd and autocast, so
``torch.compile`` and ``torch.export`` go through it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mask2former.ops import neighborhood_attention_kernels as kernels
from mask2former.ops.kernels import accumulation_dtype

_LIBRARY = torch.library.Library("mask2former", "FRAGMENT")
_LIBRARY.define(
    "neighborhood_attention(Tensor query, Tensor key, Tensor value, Tensor? rpb, int kernel_size, "
    "int dilation, float scale) -> (Tensor, Tensor)"
)
_LIBRARY.define(
    "neighborhood_attention_backward(Tensor grad_output, Tensor query, Tensor key, Tensor value, "
    "Tensor? rpb, Tensor output, Tensor logsumexp, int kernel_size, int dilation, float scale)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
_LIBRARY.impl("neighborhood_attention", kernels.cpu_forward, "CPU")
_LIBRARY.impl("neighborhood_attention_backward", kernels.cpu_backward, "CPU")
_LIBRARY.impl("neighborhood_attention", kernels.cuda_forward, "CUDA")
_LIBRARY.impl("neighborhood_attention_backward", kernels.cuda_backward, "CUDA")


@torch.library.register_fake("mask2former::neighborhood_attention", lib=_LIBRARY)
def _fake_forward(query, key, value, rpb, kernel_size, dilation, scale):
    logsumexp = query.new_empty(query.shape[:4], dtype=accumulation_dtype(query.dtype))
    return kernels.channels_beside_heads(query, query.shape[-1], query.dtype), logsumexp


@torch.library.register_fake("mask2former::neighborhood_attention_backward", lib=_LIBRARY)
def _fake_backward(
    grad_output, query, key, value, rpb, output, logsumexp, kernel_size, dilation, scale
):
    grads = tuple(x.new_empty(x.shape) for x in (query, key, value))
    return *grads, query.new_empty(0) if rpb is None else rpb.new_empty(rpb.shape)


def _save_for_backward(ctx, inputs, output):
    query, key, value, rpb, ctx.kernel_size, ctx.dilation, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, rpb, *output)


def _backward(ctx, grad_output, _):
    query, key, value, rpb, output, logsumexp = ctx.saved_tensors
    *grads, grad_rpb = torch.ops.mask2former.neighborhood_attention_backward(
        grad_output,
        query,
        key,
        value,
        rpb,
        output,
        logsumexp,
        ctx.kernel_size,
        ctx.dilation,
        ctx.scale,
    )
    return *grads, None if rpb is None else grad_rpb, None, None, None


torch.library.register_autograd(
    "mask2former::neighborhood_attention", _backward, setup_context=_save_for_backward, lib=_LIBRARY
)


def _second_derivative(ctx, *grads):
    raise RuntimeError(
        "neighborhood_attention has no second derivative in its compiled kernels; for one, compute "
        'the first under mask2former.ops.use_implementation("reference")'
    )


torch.library.register_autograd(
    "mask2former::neighborhood_attention_backward", _second_derivative, lib=_LIBRARY
)


def as_autocast_wants(query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
    """Queries, keys and values in autocast's dtype where it is on; sums stay in float32."""
    tensors, device_type = [query, key, value], query.device.type
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        return [x.to(dtype) if x.dtype == torch.float32 else x for x in tensors]
    return tensors


def _autocast(device_type: str):
    def with_cast_maps(query, key, value, rpb, kernel_size, dilation, scale):
        maps = as_autocast_wants(query, key, value)
        with torch.autocast(device_type, enabled=False):
            return torch.ops.mask2former.neighborhood_attention(
                *maps, rpb, kernel_size, dilation, scale
            )

    return with_cast_maps


_LIBRARY.impl("neighborhood_attention", _autocast("cpu"), "AutocastCPU")
_LIBRARY.impl("neighborhood_attention", _autocast("cuda"), "AutocastCUDA")

torch_op = torch.ops.mask2former.neighborhood_attention
