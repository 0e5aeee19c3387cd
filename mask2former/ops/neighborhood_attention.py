"""``neighborhood_attention_2d``: checks its arguments and runs the fastest implementation there is.

=============  ====================================================================================
path           what it is
=============  ====================================================================================
``kernel``     the compiled kernel of the device (``python build_ops.py``), forward and backward
``tiled``      PyTorch, dense attention within tiles; runs on every device, has dropout
``flex``       PyTorch's FlexAttention with the bias as ``score_mod``; for GPUs, compiled by Triton
``reference``  readable PyTorch, for small maps: copies the keys of every pixel's window
=============  ====================================================================================

By default the kernel runs, or, where it has not been built (logged once), the tiles. Mode
``"reference"`` of :func:`mask2former.ops.set_implementation` means the reference here, too.
"""

from __future__ import annotations

from torch import Tensor

from mask2former.ops import implementation
from mask2former.ops import neighborhood_attention_op as op
from mask2former.ops.libraries import DTYPES, NEIGHBORHOOD_ATTENTION
from mask2former.ops.neighborhood_attention_flex import neighborhood_attention_flex
from mask2former.ops.neighborhood_attention_reference import neighborhood_attention_reference
from mask2former.ops.neighborhood_attention_tiled import neighborhood_attention_tiled

PATHS = ("kernel", "tiled", "flex", "reference")


def neighborhood_attention_2d(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rpb: Tensor | None,
    kernel_size: int,
    dilation: int = 1,
    *,
    scale: float = 1.0,
    dropout: float = 0.0,
    path: str | None = None,
) -> Tensor:
    """Dilated neighbourhood attention (NAT and DiNAT, Hassani et al., 2022) with borders as NATTEN.

    Every pixel attends to K x K pixels around it, in steps of the dilation; where the window would
    leave the map it is moved inwards (in whole steps, so that it keeps to pixels whose row and
    column equal the query's modulo the dilation).

    As in natten 0.14, whose op DiNAT's weights were trained with, **the query comes in scaled**: no
    ``1 / sqrt(D)`` is applied unless ``scale`` says so.

    Args:
        query: ``[B, heads, H, W, D]``, float32, float64, float16 or bfloat16.
        key, value: as ``query``.
        rpb: relative position bias, ``[heads, 2K - 1, 2K - 1]``, added to the logits; the bias of
            a neighbour stands at (neighbour - query) / dilation + K - 1. None: no bias.
        kernel_size: K, odd.
        dilation: at least 1. ``K * dilation`` may not exceed H or W.
        scale: factor of the products of queries and keys.
        dropout: probability with which a weight is dropped; above 0 runs in PyTorch.
        path: forces one of ``PATHS``; by default see the top of this file.

    Returns:
        ``[B, heads, H, W, D]`` in the dtype of ``query``; under autocast, in autocast's dtype.

    Raises:
        ValueError: if shapes, dtypes, devices or options do not fit together.
        RuntimeError: if a kernel fails, or is required but missing.
    """
    _check(query, key, value, rpb, kernel_size, dilation)
    options = (rpb, kernel_size, dilation)
    path = path or _choose(query.device.type, dropout)
    if path == "kernel" and not dropout:
        output, _ = op.torch_op(query, key, value, *options, scale)
        return output
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}; got {path!r}")
    if dropout and path != "tiled":
        raise ValueError(f"dropout ({dropout}) needs the path 'tiled', not {path!r}")
    maps = op.as_autocast_wants(query, key, value)
    if path == "tiled":
        return neighborhood_attention_tiled(*maps, *options, scale, dropout)
    if path == "flex":
        return neighborhood_attention_flex(*maps, *options, scale)
    return neighborhood_attention_reference(*maps, *options, scale)


def _choose(device_type: str, dropout: float) -> str:
    if dropout:
        return "tiled"
    if implementation.use_kernel(device_type, NEIGHBORHOOD_ATTENTION):
        return "kernel"
    return "reference" if implementation.wants_reference() else "tiled"


def _check(
    query: Tensor, key: Tensor, value: Tensor, rpb: Tensor | None, kernel_size: int, dilation: int
) -> None:
    if query.dim() != 5 or query.dtype not in DTYPES:
        raise ValueError(
            "query must be [batch, heads, height, width, depth] of a floating dtype, "
            f"got {tuple(query.shape)} of {query.dtype}"
        )
    for name, tensor in (("key", key), ("value", value)):
        same_kind = tensor.dtype == query.dtype and tensor.device == query.device
        if tensor.shape != query.shape or not same_kind:
            raise ValueError(
                f"{name} must be as query, {tuple(query.shape)} of {query.dtype} on {query.device};"
                f" got {tuple(tensor.shape)} of {tensor.dtype} on {tensor.device}"
            )
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
    if dilation < 1:
        raise ValueError(f"dilation must be at least 1, got {dilation}")
    heads, height, width = query.shape[1:4]
    # Not min(height, width): torch.compile would remember which of them is smaller.
    if height < kernel_size * dilation or width < kernel_size * dilation:
        raise ValueError(
            f"a map of {height} x {width} is smaller than kernel_size * dilation = {kernel_size} * "
            f"{dilation} = {kernel_size * dilation}; pad it (as DiNAT does) or take a smaller "
            "kernel or dilation"
        )
    side = 2 * kernel_size - 1
    if rpb is not None and (tuple(rpb.shape) != (heads, side, side) or rpb.device != query.device):
        raise ValueError(
            f"rpb must be [heads={heads}, {side}, {side}] for kernel_size {kernel_size}, on "
            f"{query.device}; got {tuple(rpb.shape)} on {rpb.device}"
        )
