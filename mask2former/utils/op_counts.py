"""Counts multiply-adds and activations of a forward pass while it runs.

torch's ``FlopCounterMode`` sees every operator that is dispatched, so nothing has to be traced
(``torch.jit`` cannot trace the compiled ops, nor post-processing that looks at values). It is told
here about the operators it does not know: attention's CPU kernel and those of ``mask2former.ops``.

Figures follow the convention of fvcore and of the papers: one multiply-add is one "flop", and
elementwise work, norms and interpolation are not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import mask2former.ops  # noqa: F401  (registers torch.ops.mask2former)

# A bilinear sample is four multiply-adds a channel, its attention weight is the fifth.
_PER_SAMPLE = 5


@dataclass
class Counts:
    """What one forward pass did.

    Attributes:
        by_operator: operator ("conv", "matmul", ...) -> count.
        by_module: module path ("" is the whole model) -> count.
    """

    by_operator: Counter = field(default_factory=Counter)
    by_module: Counter = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Over all operators."""
        return sum(self.by_operator.values())


def count_flops(model: nn.Module, *inputs: Any) -> Counts:
    """Multiply-adds of ``model(*inputs)``."""
    # FlopCounterMode counts a multiply-add as two.
    return _run(model, inputs, _UNKNOWN_TO_TORCH, unit=2)


def count_activations(model: nn.Module, *inputs: Any) -> Counts:
    """Values that convolutions, matrix products and attention give out in ``model(*inputs)``.

    Attention gives two: its matrix of weights, which the fused kernels never store, and its output.
    """
    formulas = {op: _output_size for op in (*flop_registry, *_UNKNOWN_TO_TORCH)}
    formulas |= {op: _attention_activations for op in formulas if "scaled_dot" in str(op)}
    return _run(model, inputs, formulas, unit=1)


def module_table(model: nn.Module, counts: Counts, unit: str, *, depth: int = 3) -> str:
    """A table of the modules down to ``depth``: parameters and billions (G) of counts."""
    rows = []
    for name, module in model.named_modules():
        level = name.count(".") + 1 if name else 0
        if level <= depth and (counts.by_module[name] or not name):
            parameters = sum(p.numel() for p in module.parameters())
            label = "  " * level + (name.rpartition(".")[2] or "model")
            share = counts.by_module[name] / max(counts.total, 1)
            rows.append(
                [
                    label,
                    f"{parameters / 1e6:.3f}M",
                    f"{counts.by_module[name] / 1e9:.3f}",
                    f"{share:.1%}",
                ]
            )
    headers = ["module", "parameters", unit, "share"]
    return tabulate(
        rows,
        headers,
        tablefmt="pipe",
        colalign=("left", "right", "right", "right"),
        disable_numparse=True,
        preserve_whitespace=True,
    )


def _run(
    model: nn.Module, inputs: tuple, formulas: dict[Any, Callable[..., int]], unit: int
) -> Counts:
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with torch.no_grad(), _frozen(model), counter:
        model(*inputs)
    counts = Counts()
    root = type(model).__name__
    for path, operators in counter.get_flop_counts().items():
        total = sum(operators.values()) // unit
        if path == "Global":
            counts.by_module[""] = total
            for op, value in operators.items():
                counts.by_operator[_operator_name(op)] += value // unit
        elif path.startswith(f"{root}."):
            counts.by_module[path.removeprefix(f"{root}.")] = total
    _add_containers(model, counts)
    return counts


def _add_containers(model: nn.Module, counts: Counts) -> None:
    """Modules that are never called themselves (lists, pixel decoders) have their children's."""
    for name, module in reversed(list(model.named_modules())):
        if name and not counts.by_module[name]:
            children = (f"{name}.{child}" for child, _ in module.named_children())
            counts.by_module[name] = sum(counts.by_module[child] for child in children)


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Without this, torch's module tracker waits for gradients of parameters it meets as inputs."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


_NAMES = {"mm": "matmul", "addmm": "linear", "bmm": "matmul", "baddbmm": "matmul"}


def _operator_name(op: Any) -> str:
    name = str(op).rpartition(".")[2]
    if "scaled_dot_product" in name:
        return "attention"
    return _NAMES.get(name, "conv" if "conv" in name else name)


def _ms_deform_attn(value_shape, spatial_shapes, locations_shape, *args, **kwargs) -> int:
    batch, queries, heads, levels, points, _ = locations_shape
    return 2 * _PER_SAMPLE * batch * queries * heads * levels * points * value_shape[-1]


def _attention(query_shape, key_shape, value_shape, *args, **kwargs) -> int:
    *batch, queries, depth = query_shape
    keys, value_depth = value_shape[-2:]
    return 2 * math.prod(batch) * queries * keys * (depth + value_depth)


def _attention_activations(query_shape, key_shape, value_shape, *args, **kwargs) -> int:
    *batch, queries, _ = query_shape
    keys, depth = value_shape[-2:]
    return math.prod(batch) * queries * (keys + depth)


def _output_size(*args, out_shape=None, **kwargs) -> int:
    while out_shape and not isinstance(out_shape[0], int):
        out_shape = out_shape[0]  # several outputs: the first is the result
    return math.prod(out_shape)


def _neighborhood_attention(
    query_shape, key_shape, value_shape, rpb_shape, kernel_size, *args, **kwargs
) -> int:
    # For each of a pixel's neighbours a product with its key, and its value times a weight.
    return 2 * 2 * math.prod(query_shape) * kernel_size**2


_UNKNOWN_TO_TORCH = {
    torch.ops.mask2former.ms_deform_attn: _ms_deform_attn,
    torch.ops.mask2former.neighborhood_attention: _neighborhood_attention,
}
for _name in (
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
):
    if hasattr(torch.ops.aten, _name):
        _UNKNOWN_TO_TORCH[getattr(torch.ops.aten, _name)] = _attention
