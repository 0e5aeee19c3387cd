"""Makes a training step faster without changing what it computes, parameter names included.

See docs/performance.md for what each piece gains.
"""

import torch
from torch import Tensor, nn

from detectron2.config import CfgNode
from detectron2.layers import Conv2d, FrozenBatchNorm2d

from .fast_inference import is_convolutional, use_channels_last, with_reference_ops


def prepare_for_training(model: nn.Module, cfg: CfgNode) -> nn.Module:
    """Applies ``MODEL.FAST`` to a model that is going to be trained; call before the optimizer.

    True: frozen batch norms act on the weights of the convolutions before them, and on a CPU
    convolutions work channels-last. False: the compiled ops give way to their readable references.
    Names, shapes and values of parameters stay; checkpoints are the same.

    Args:
        model: any meta architecture, changed in place.
        cfg: its config.

    Returns:
        ``model``.
    """
    if not cfg.MODEL.FAST:
        return with_reference_ops(model)
    merge_frozen_norms(model)
    if next(model.parameters()).device.type == "cpu":
        backbone, head = (getattr(model, name, None) for name in ("backbone", "sem_seg_head"))
        if backbone is not None and is_convolutional(backbone):
            use_channels_last(backbone)
        if head is not None:
            head.to(memory_format=torch.channels_last)
    return model


class MergedConv2d(Conv2d):
    """A convolution whose frozen batch norm scales its weight instead of its output.

    ``scale * conv(x, w) + shift`` equals ``conv(x, scale * w) + shift`` and saves two passes over
    the output, and one over its gradient. Gradients reach ``w`` through the product.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H', W']"""
        norm = self.norm
        if norm is None:  # folded since, see fast_inference
            return super().forward(x)
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()  # [C_out]
        shift = norm.bias - norm.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias * scale
        x = self._conv_forward(x, self.weight * scale[:, None, None, None], shift)
        return x if self.activation is None else self.activation(x)


def merge_frozen_norms(module: nn.Module) -> int:
    """Lets every ``Conv2d`` with a frozen batch norm be a :class:`MergedConv2d`, in place.

    Returns:
        how many.
    """
    merged = 0
    for part in module.modules():
        if type(part) is Conv2d and type(part.norm) is FrozenBatchNorm2d:
            part.__class__ = MergedConv2d
            merged += 1
    return merged
