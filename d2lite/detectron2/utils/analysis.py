"""Counting parameters, operations and activations of models whose inputs are lists of dicts.

The counting is fvcore's; this module flattens structured inputs and outputs to tensors for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fvcore.nn
import torch
from fvcore.nn import activation_count, flop_count, parameter_count, parameter_count_table
from torch import nn

from detectron2._missing import missing_getattr
from detectron2.structures import BitMasks, Boxes, ImageList, Instances, Keypoints

__all__ = [
    "FlopCountAnalysis",
    "activation_count_operators",
    "find_unused_parameters",
    "flop_count_operators",
    "parameter_count",
    "parameter_count_table",
]

FLOPS_MODE = "flops"
ACTIVATIONS_MODE = "activations"

# Cheap elementwise operations and index arithmetic: not counted, and not reported as unknown.
_IGNORED_OPS = {
    "aten::add", "aten::add_", "aten::argmax", "aten::argsort", "aten::batch_norm",
    "aten::constant_pad_nd", "aten::div", "aten::div_", "aten::exp", "aten::log2",
    "aten::max_pool2d", "aten::meshgrid", "aten::mul", "aten::mul_", "aten::neg",
    "aten::nonzero_numpy", "aten::reciprocal", "aten::repeat_interleave", "aten::rsub",
    "aten::sigmoid", "aten::sigmoid_", "aten::softmax", "aten::sort", "aten::sqrt",
    "aten::sub", "torchvision::nms",
}  # fmt: skip


def _flatten(value: Any, tensors: list[torch.Tensor]) -> Any:
    """Append the tensors in ``value`` to ``tensors``; return a schema to rebuild it from."""
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return ("tensor", len(tensors) - 1)
    if isinstance(value, Mapping):
        return ("dict", {key: _flatten(x, tensors) for key, x in value.items()})
    if isinstance(value, (list, tuple)):
        return ("sequence", type(value), [_flatten(x, tensors) for x in value])
    if isinstance(value, Instances):
        fields = {name: _flatten(x, tensors) for name, x in value.get_fields().items()}
        return ("instances", value.image_size, fields)
    if isinstance(value, (Boxes, BitMasks, Keypoints)):
        return ("wrapped", type(value), _flatten(value.tensor, tensors))
    if isinstance(value, ImageList):
        return ("images", value.image_sizes, _flatten(value.tensor, tensors))
    return ("constant", value)


def _rebuild(schema: Any, tensors: tuple[torch.Tensor, ...]) -> Any:
    kind = schema[0]
    if kind == "tensor":
        return tensors[schema[1]]
    if kind == "dict":
        return {key: _rebuild(x, tensors) for key, x in schema[1].items()}
    if kind == "sequence":
        return schema[1](_rebuild(x, tensors) for x in schema[2])
    if kind == "instances":
        fields = {name: _rebuild(x, tensors) for name, x in schema[2].items()}
        return Instances(schema[1], **fields)
    if kind == "wrapped":
        return schema[1](_rebuild(schema[2], tensors))
    if kind == "images":
        return ImageList(_rebuild(schema[2], tensors), schema[1])
    return schema[1]


class _TensorsOnly(nn.Module):
    """``model`` with flat tensors in and out, which is what tracing takes."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        super().__init__()
        self.model = model
        arguments = inputs if isinstance(inputs, tuple) else (inputs,)
        flat: list[torch.Tensor] = []
        self._schema = _flatten(arguments, flat)
        self.flattened_inputs = tuple(flat)

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: list[torch.Tensor] = []
        with torch.no_grad():
            _flatten(self.model(*_rebuild(self._schema, tensors)), outputs)
        return tuple(outputs)


class FlopCountAnalysis(fvcore.nn.FlopCountAnalysis):
    """fvcore's analysis for any model and inputs; modules are named ``model.<name>``."""

    def __init__(self, model: nn.Module, inputs: Any) -> None:
        """
        Args:
            inputs: the model's argument, or a tuple of its arguments: tensors, lists, dicts and
                detectron2's structures, with constants between them.
        """
        wrapper = _TensorsOnly(model, inputs)
        super().__init__(wrapper, wrapper.flattened_inputs)
        self.set_op_handle(**dict.fromkeys(_IGNORED_OPS))


def _count(model: nn.Module, inputs: list[dict], mode: str, **kwargs: Any) -> dict[str, float]:
    if len(inputs) != 1:
        raise AssertionError(f"Please use a batch of one image, not {len(inputs)}")
    wrapper = _TensorsOnly(model, [{"image": inputs[0]["image"]}])
    kwargs.setdefault("supported_ops", dict.fromkeys(_IGNORED_OPS, lambda *_: {}))
    count = {FLOPS_MODE: flop_count, ACTIVATIONS_MODE: activation_count}[mode]
    was_training = model.training
    wrapper.eval()
    try:
        counted = count(wrapper, wrapper.flattened_inputs, **kwargs)
    finally:
        model.train(was_training)
    return counted[0] if isinstance(counted, tuple) else counted


def flop_count_operators(model: nn.Module, inputs: list[dict]) -> dict[str, float]:
    """Billions (10^9) of multiply-adds by operator, in evaluation mode.

    Args:
        inputs: a list of one dict with the key "image", as models take it.
    """
    return _count(model, inputs, FLOPS_MODE)


def activation_count_operators(
    model: nn.Module, inputs: list[dict], **kwargs: Any
) -> dict[str, float]:
    """Millions of output values by operator (convolutions and matrix products), in evaluation.

    Args:
        inputs: a list of one dict with the key "image".
        kwargs: passed to ``fvcore.nn.activation_count``.
    """
    return _count(model, inputs, ACTIVATIONS_MODE, **kwargs)


def find_unused_parameters(model: nn.Module, inputs: Any) -> list[str]:
    """Names of parameters that get no gradient from the losses; gradients are cleared."""
    if not model.training:
        raise AssertionError("find_unused_parameters needs a model in training mode")
    model.zero_grad(set_to_none=True)
    losses = model(inputs)
    if isinstance(losses, dict):
        losses = sum(losses.values())
    losses.backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    model.zero_grad(set_to_none=True)
    return unused


__getattr__ = missing_getattr(__name__)
