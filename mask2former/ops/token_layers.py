"""Whole layers of transformers on the CPU, for inference: calls compiled kernels with tensors.

A thread takes a block of tokens through a layer while they stay in its cache; PyTorch would write
every intermediate result to memory and read it back. Matrix products are those of torch's own
library, whose ``sgemm`` the kernels are given. Results differ by rounding only. What calls this
keeps its readable form beside it, and asks :func:`applies` which one to take.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from mask2former.ops.implementation import use_kernel
from mask2former.ops.libraries import TOKEN_LAYERS, load, torch_blas

WIDTH = 16  # numbers of a row come in multiples of this


def applies(*inputs: Tensor, layers: tuple[nn.Module, ...], widths: tuple[int, ...] = ()) -> bool:
    """Whether the kernels can take the place of some layers without anybody noticing.

    So it is for float32 on the CPU without gradients, autocast, compiling, tracing, dispatch modes
    or hooks of all modules, and for layers that are plain ``Linear`` and ``LayerNorm`` without
    hooks, whose channels are multiples of 16.

    Args:
        inputs: what the layers work on.
        layers: those of the readable path that would not be called.
        widths: further numbers that must be multiples of 16.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not is_plain_call():
        return False
    if not all(is_plain(x) for x in inputs) or any(width % WIDTH for width in widths):
        return False
    return all(_is_plain_layer(layer) for layer in layers) and use_kernel("cpu", TOKEN_LAYERS)


def is_plain_call() -> bool:
    """Whether nobody looks at the operations of a call or changes them."""
    return not (
        torch.is_autocast_enabled("cpu")
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0  # which gradients switched off leave on
        or nn.modules.module._has_any_global_hook()
    )


def is_plain(x: Tensor) -> bool:
    """Whether a kernel can read it: a tensor with memory of its own, float32, on the CPU."""
    if type(x) not in (Tensor, nn.Parameter) or x.dtype != torch.float32 or not x.is_cpu:
        return False
    return x.layout == torch.strided and not x.is_neg()


def is_untouched(module: nn.Module, *kinds: type[nn.Module]) -> bool:
    """Whether a module is of one of these very classes, in evaluation mode, and without hooks.

    Those of the readable path that do nothing in evaluation, such as dropouts, or that only hold
    layers must be, or something would be passed over.
    """
    if type(module) not in kinds or module.training or "forward" in vars(module):
        return False
    return not (module._forward_hooks or module._forward_pre_hooks)


def _is_plain_layer(layer: nn.Module) -> bool:
    if not is_untouched(layer, nn.Linear, nn.LayerNorm):
        return False
    if type(layer) is nn.Linear:
        rows, columns = layer.weight.shape
        fits = rows % WIDTH == 0 and columns % WIDTH == 0
    else:
        fits = len(layer.normalized_shape) == 1 and layer.weight is not None
        fits = fits and layer.bias is not None and layer.normalized_shape[0] % WIDTH == 0
    return fits and all(
        is_plain(p) and p.is_contiguous() for p in (layer.weight, layer.bias) if p is not None
    )


def width_after(width: int, *layers: nn.Linear | nn.LayerNorm) -> int | None:
    """Channels after some layers in turn; None where one wants others than it is given.

    Kernels would read beyond the end of what does not fit, so whoever calls them asks first.
    """
    for layer in layers:
        if layer.weight.shape[-1] != width:
            return None
        width = len(layer.weight)
    return width


def is_mask(x: Tensor | None) -> bool:
    """Whether :func:`cross_attention` knows such an ``attend``."""
    return x is None or (type(x) is Tensor and x.dtype == torch.bool and x.is_cpu)


def pre_norm_perceptron(x: Tensor, norm: nn.LayerNorm, fc1: nn.Linear, fc2: nn.Linear) -> Tensor:
    """``x + fc2(gelu(fc1(norm(x))))``, ``[..., C]``."""
    return _perceptron(x, None, None, norm, fc1, fc2, None, gelu=True)


def post_norm_perceptron(
    x: Tensor,
    attended: Tensor,
    projection: nn.Linear,
    norm1: nn.LayerNorm,
    linear1: nn.Linear,
    linear2: nn.Linear,
    norm2: nn.LayerNorm,
) -> Tensor:
    """What follows the attention of a post-norm layer with ReLU.

    ``y = norm1(x + projection(attended))`` to ``norm2(y + linear2(relu(linear1(y))))``, both
    ``[..., C]``.
    """
    return _perceptron(x, attended, projection, norm1, linear1, linear2, norm2, gelu=False)


def _perceptron(x, joining, entry, first_norm, fc1, fc2, last_norm, *, gelu: bool) -> Tensor:
    x = x.contiguous()
    joining = None if joining is None else joining.contiguous()
    out = torch.empty_like(x)
    tokens = x.numel() // x.shape[-1]
    sizes = (tokens, int(gelu), *_sizes(entry), *_sizes(fc1), *_sizes(fc2))
    numbers = [0.0 if norm is None else norm.eps for norm in (first_norm, last_norm)]
    parts = (entry, fc1, fc2, first_norm, last_norm)
    pointers = (_pointer(x), _pointer(joining), *[p for part in parts for p in _pointers(part)])
    load("cpu", TOKEN_LAYERS).token_layers_cpu_perceptron(
        _int64s(sizes), _floats(numbers), _array(pointers), _pointer(out), *_blas_and_threads()
    )
    return out


def cross_attention(
    query: Tensor, keys: Tensor, value: Tensor, attend: Tensor | None, heads: int
) -> Tensor:
    """Scaled dot-product attention of few queries to many keys.

    Args:
        query: ``[B, Q, C]``, ``C / heads`` being a multiple of 16.
        keys: transposed, ``[B, C, N]``.
        value: ``[B, N, C]``.
        attend: bool, broadcastable to ``[B, heads, Q, N]``; False is blocked. Every row has a True.

    Returns:
        ``[B, Q, C]``.
    """
    query, keys, value = query.contiguous(), keys.contiguous(), value.contiguous()
    batch, rows, channels = query.shape
    count, strides = value.shape[1], (0, 0, 0)
    if attend is not None:
        attend = attend.expand(batch, heads, rows, count)
        if attend.stride(-1) != 1:
            attend = attend.contiguous()
        strides = attend.stride()[:3]
    out = torch.empty_like(query)
    load("cpu", TOKEN_LAYERS).token_layers_cpu_attention(
        _int64s((batch, heads, channels // heads, rows, count, *strides)),
        *map(_pointer, (query, keys, value, attend, out)),
        (channels // heads) ** -0.5,
        torch.get_num_threads(),
    )
    return out


def window_attention(
    x: Tensor,
    norm: nn.LayerNorm,
    qkv: nn.Linear,
    proj: nn.Linear,
    bias: Tensor,
    separation: Tensor,
    *,
    window_size: int,
    shift: int,
    scale: float,
) -> Tensor:
    """``x + proj(attention(qkv(norm(x))))`` within windows of cyclically shifted, padded maps.

    Args:
        x: ``[B, H, W, C]``.
        bias: added to the logits, ``[heads, N, N]``, ``N = window_size ** 2``; ``C / heads`` must
            be a multiple of 16.
        separation: added as well in shifted windows, ``[4, N, N]``: those of the interior, the last
            column, the last row, and the corner.
        shift: tokens by which the windows are shifted; 0 <= shift < window_size.
        scale: of products of queries and keys.

    Returns:
        ``[B, H, W, C]``.
    """
    x = x.contiguous()
    out = torch.empty_like(x)
    bias, separation = _padded(bias, -1e30), _padded(separation, 0.0)
    sizes = (*x.shape[:3], len(bias), window_size, shift, bias.shape[-1])
    pointers = (x, bias, separation)
    load("cpu", TOKEN_LAYERS).token_layers_cpu_windows(
        _int64s((*sizes, *_sizes(qkv), *_sizes(proj))),
        _floats((scale, norm.eps)),
        _array([*map(_pointer, pointers), *_pointers(qkv), *_pointers(proj), *_pointers(norm)]),
        _pointer(out),
        *_blas_and_threads(),
    )
    return out


def _padded(logits: Tensor, value: float) -> Tensor:
    """``[..., N]`` with columns up to a multiple of 16."""
    return nn.functional.pad(logits, (0, -logits.shape[-1] % WIDTH), value=value).contiguous()


def deformable_samples(
    x: Tensor,
    pos: Tensor,
    reference_points: Tensor,
    level_sizes: Tensor,
    value_proj: nn.Linear,
    sampling_offsets: nn.Linear,
    attention_weights: nn.Linear,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """What deformable self-attention of tokens ``x`` with queries ``x + pos`` is given.

    Args:
        x: ``[B, S, C]``.
        pos: the same, or with a batch of one.
        reference_points: broadcastable to ``[B, S, L, 2]``; may be an expanded view.
        level_sizes: (width, height) of every level, ``[L, 2]``.

    Returns:
        values ``[B, S, heads, D]``, whose heads lie one after another in memory, as the kernel of
        deformable attention likes it; locations ``[B, S, heads, L, P, 2]`` and attention weights
        ``[B, S, heads, L, P]``.
    """
    x, pos = x.contiguous(), pos.contiguous()
    batch, tokens, _ = x.shape
    levels = len(level_sizes)
    points = attention_weights.out_features // (heads * levels)
    reference_points = reference_points.expand(batch, tokens, levels, 2)
    if reference_points.stride(-1) != 1:
        reference_points = reference_points.contiguous()
    inverse = level_sizes[None, :, None].reciprocal().expand(heads, levels, points, 2).contiguous()
    value = x.new_empty(batch, heads, tokens, value_proj.out_features // heads)
    locations = x.new_empty(batch, tokens, heads, levels, points, 2)
    weights = x.new_empty(batch, tokens, heads, levels, points)
    linears = (value_proj, sampling_offsets, attention_weights)
    sizes = (batch, tokens, heads, levels, points, pos.stride(0) if len(pos) > 1 else 0)
    inputs = (x, pos, reference_points, inverse)
    load("cpu", TOKEN_LAYERS).token_layers_cpu_samples(
        _int64s((*sizes, *reference_points.stride()[:3], *[n for p in linears for n in _sizes(p)])),
        _array([*map(_pointer, inputs), *[p for part in linears for p in _pointers(part)]]),
        *map(_pointer, (value, locations, weights)),
        *_blas_and_threads(),
    )
    return value.transpose(1, 2), locations, weights


def _sizes(linear: nn.Linear | None) -> tuple[int, int]:
    return (0, 0) if linear is None else tuple(linear.weight.shape)


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _pointers(part: nn.Linear | nn.LayerNorm | None) -> tuple[int | None, int | None]:
    return (None, None) if part is None else (_pointer(part.weight), _pointer(part.bias))


def _int64s(numbers) -> ctypes.Array:
    return (ctypes.c_int64 * len(numbers))(*numbers)


def _floats(numbers) -> ctypes.Array:
    return (ctypes.c_float * len(numbers))(*numbers)


def _array(pointers) -> ctypes.Array:
    return (ctypes.c_void_p * len(pointers))(*pointers)


def _blas_and_threads() -> tuple[ctypes.Array, int]:
    return torch_blas(), torch.get_num_threads()
