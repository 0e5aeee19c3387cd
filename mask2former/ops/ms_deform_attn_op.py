"""``ms_deform_attn``: checks its arguments and runs the fastest implementation there is.

The compiled kernels are behind ``torch.ops.mask2former.ms_deform_attn``, an op of ``torch.library``
with a fake kernel, autograd and autocast, so ``torch.compile`` and ``torch.export`` go through it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mask2former.ops import kernels
from mask2former.ops.implementation import use_kernel
from mask2former.ops.libraries import DTYPES
from mask2former.ops.reference import ms_deform_attn_reference


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]] | Tensor,
    level_start_index: Sequence[int] | Tensor | None,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Multi-scale deformable attention (Deformable DETR, Zhu et al. 2021, equation 3).

    Every query and head takes a weighted sum of bilinear samples of the head's value maps. Outside
    a map values are zero; a pixel's value sits at its centre (``align_corners=False``). A sample
    without any pixel of the map around it, as every sample at a NaN or infinite location,
    contributes nothing and gets no gradient.

    Args:
        value: ``[B, S, H, D]``, float32, float64, float16 or bfloat16; the levels one after
            another, each row by row.
        spatial_shapes: ``(height, width)`` of each of the L levels. Ints cost nothing; an int
            tensor ``[L, 2]`` is copied to the host, which waits for the device.
        level_start_index: first position of each level. May be None: the levels follow one
            another. Checked where that needs no device (ints, CPU tensors).
        sampling_locations: ``[B, Q, H, L, P, 2]``, (x, y), where 0 and 1 are the map's edges.
        attention_weights: ``[B, Q, H, L, P]``, usually summing to one over L and P.

        Locations and weights are used in float32 (float64 for float64 values) whatever they come
        in; for 16-bit values it pays to hand them over in float32.

    Returns:
        ``[B, Q, H*D]`` in the dtype of ``value``; under autocast, in autocast's dtype.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit together.
        RuntimeError: if a kernel fails, or is required but missing (see ``use_implementation``).
    """
    shapes = _as_int_pairs(spatial_shapes)
    _check(value, shapes, level_start_index, sampling_locations, attention_weights)
    if not use_kernel(value.device.type):
        value = _as_autocast_wants(value, value.device.type)
        return ms_deform_attn_reference(value, shapes, sampling_locations, attention_weights)
    return torch.ops.mask2former.ms_deform_attn(
        value,
        [side for shape in shapes for side in shape],
        sampling_locations.to(kernels.accumulation_dtype(value.dtype)),
        attention_weights.to(kernels.accumulation_dtype(value.dtype)),
    )


def _as_int_pairs(spatial_shapes: Sequence[tuple[int, int]] | Tensor) -> list[tuple[int, int]]:
    if isinstance(spatial_shapes, Tensor):
        spatial_shapes = spatial_shapes.tolist()
    if torch.jit.is_tracing():  # sizes are tensors there, and a trace is of one size anyway
        return [(int(height), int(width)) for height, width in spatial_shapes]
    return [(height, width) for height, width in spatial_shapes]


def _check(
    value: Tensor,
    shapes: list[tuple[int, int]],
    starts: Sequence[int] | Tensor | None,
    locations: Tensor,
    attention: Tensor,
) -> None:
    if value.dim() != 4 or value.dtype not in DTYPES:
        raise ValueError(
            "value must be [batch, positions, heads, depth] of a floating dtype, "
            f"got {tuple(value.shape)} of {value.dtype}"
        )
    batch, positions, heads, _ = value.shape
    areas = [height * width for height, width in shapes]
    if not shapes or min(min(shape) for shape in shapes) < 1 or sum(areas) != positions:
        raise ValueError(
            f"spatial_shapes {shapes} hold {sum(areas)} positions, "
            f"but value {tuple(value.shape)} has {positions}"
        )
    if attention.dim() != 5 or (attention.shape[0], *attention.shape[2:4]) != (
        batch,
        heads,
        len(shapes),
    ):
        raise ValueError(
            f"attention_weights must be [batch={batch}, queries, heads={heads}, "
            f"levels={len(shapes)}, points], got {tuple(attention.shape)}"
        )
    if tuple(locations.shape) != (*attention.shape, 2):
        raise ValueError(
            f"sampling_locations must be {(*attention.shape, 2)} to fit attention_weights, "
            f"got {tuple(locations.shape)}"
        )
    for name, tensor in (("sampling_locations", locations), ("attention_weights", attention)):
        if tensor.device != value.device or not tensor.is_floating_point():
            raise ValueError(
                f"{name} must be floating and on the device of value ({value.device}), "
                f"got {tensor.dtype} on {tensor.device}"
            )
    _check_starts(starts, areas)


def _check_starts(starts: Sequence[int] | Tensor | None, areas: list[int]) -> None:
    if isinstance(starts, Tensor):
        if starts.device.type != "cpu" or torch.compiler.is_compiling():
            return  # reading it would make the host wait
        starts = starts.tolist()
    if starts is None:
        return
    expected = [sum(areas[:level]) for level in range(len(areas))]
    if list(starts) != expected:
        raise ValueError(f"level_start_index must be {expected} for these shapes, got {starts}")


# ------------------------------------------------------------------ the op behind the kernels

_LIBRARY = torch.library.Library("mask2former", "DEF")
_LIBRARY.define(
    "ms_deform_attn(Tensor value, SymInt[] spatial_shapes, Tensor sampling_locations, "
    "Tensor attention_weights) -> Tensor"
)
_LIBRARY.define(
    "ms_deform_attn_backward(Tensor grad_output, Tensor value, SymInt[] spatial_shapes, "
    "Tensor sampling_locations, Tensor attention_weights) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.impl("ms_deform_attn", kernels.cpu_forward, "CPU")
_LIBRARY.impl("ms_deform_attn_backward", kernels.cpu_backward, "CPU")
_LIBRARY.impl("ms_deform_attn", kernels.cuda_forward, "CUDA")
_LIBRARY.impl("ms_deform_attn_backward", kernels.cuda_backward, "CUDA")


@torch.library.register_fake("mask2former::ms_deform_attn", lib=_LIBRARY)
def _fake_forward(value, spatial_shapes, sampling_locations, attention_weights):
    batch, queries, heads = attention_weights.shape[:3]
    return value.new_empty(batch, queries, heads * value.shape[3])


@torch.library.register_fake("mask2former::ms_deform_attn_backward", lib=_LIBRARY)
def _fake_backward(grad_output, value, spatial_shapes, sampling_locations, attention_weights):
    inputs = (value, sampling_locations, attention_weights)
    return tuple(tensor.new_empty(tensor.shape) for tensor in inputs)


def _save_for_backward(ctx, inputs, output):
    value, ctx.spatial_shapes, locations, attention = inputs
    ctx.save_for_backward(value, locations, attention)


def _backward(ctx, grad_output):
    value, locations, attention = ctx.saved_tensors
    grads = torch.ops.mask2former.ms_deform_attn_backward(
        grad_output, value, ctx.spatial_shapes, locations, attention
    )
    return grads[0], None, grads[1], grads[2]


torch.library.register_autograd(
    "mask2former::ms_deform_attn", _backward, setup_context=_save_for_backward, lib=_LIBRARY
)


def _second_derivative(ctx, *grads):
    raise RuntimeError(
        "ms_deform_attn has no second derivative in its compiled kernels; for one, compute the "
        'first under mask2former.ops.use_implementation("reference")'
    )


torch.library.register_autograd(
    "mask2former::ms_deform_attn_backward", _second_derivative, lib=_LIBRARY
)


def _as_autocast_wants(value: Tensor, device_type: str) -> Tensor:
    """Values in autocast's dtype, where it is on.

    Only the values, which are most of the memory traffic, go to 16 bits: a location has fewer bits
    to spare (bfloat16 tells 256 places in a map apart), and sums are kept in float32 anyway.
    """
    if torch.is_autocast_enabled(device_type) and value.dtype == torch.float32:
        return value.to(torch.get_autocast_dtype(device_type))
    return value


def _autocast(device_type: str):
    def with_cast_value(value, spatial_shapes, sampling_locations, attention_weights):
        value = _as_autocast_wants(value, device_type)
        with torch.autocast(device_type, enabled=False):
            return torch.ops.mask2former.ms_deform_attn(
                value, spatial_shapes, sampling_locations, attention_weights
            )

    return with_cast_value


_LIBRARY.impl("ms_deform_attn", _autocast("cpu"), "AutocastCPU")
_LIBRARY.impl("ms_deform_attn", _autocast("cuda"), "AutocastCUDA")
