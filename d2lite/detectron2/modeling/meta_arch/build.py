"""The registry of meta architectures (whole models) and the function that builds one."""

import torch
from torch import nn

from detectron2._missing import missing_getattr
from detectron2.config import CfgNode
from detectron2.utils.registry import Registry

__all__ = ["META_ARCH_REGISTRY", "build_model"]

META_ARCH_REGISTRY = Registry("META_ARCH")
META_ARCH_REGISTRY.__doc__ = """
Whole models by name. An entry is called as ``entry(cfg)`` and returns an ``nn.Module`` that takes
``list[dict]`` and returns a dict of losses (training) or ``list[dict]`` of outputs (evaluation).
"""


def build_model(cfg: CfgNode) -> nn.Module:
    """Builds ``cfg.MODEL.META_ARCHITECTURE`` on ``cfg.MODEL.DEVICE``, with its initial weights.

    Loads no checkpoint and leaves the model in training mode.

    Raises:
        KeyError: the name is not registered.
    """
    model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    return model.to(torch.device(cfg.MODEL.DEVICE))


__getattr__ = missing_getattr(__name__)
