"""The functions of detectron2's model zoo.

They look up detectron2's packaged collection of baseline configs, which d2lite does not carry;
a file that exists on disk is accepted instead.
"""

from __future__ import annotations

import os
from typing import NoReturn

import torch

from detectron2._missing import missing_getattr
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode, get_cfg

__all__ = ["get", "get_checkpoint_url", "get_config", "get_config_file"]


def _refuse(config_path: str) -> NoReturn:
    raise RuntimeError(
        f"{config_path} not available in Model Zoo! d2lite, the small detectron2 in use here, "
        "carries none of detectron2's baseline configs and weights. Give the path of a YAML file, "
        "or install detectron2 itself."
    )


def get_config_file(config_path: str) -> str:
    """The path of a config: ``config_path`` itself if it is a file.

    Raises:
        RuntimeError: it is no file (a name of detectron2's collection, for instance).
    """
    if not os.path.isfile(config_path):
        _refuse(config_path)
    return config_path


def get_checkpoint_url(config_path: str) -> str:
    """The address of the weights trained with a baseline config: always RuntimeError here."""
    _refuse(config_path)


def get_config(config_path: str, trained: bool = False) -> CfgNode:
    """A config tree with the file merged.

    Args:
        trained: as in detectron2, replace MODEL.WEIGHTS by the trained weights (RuntimeError).
    """
    cfg = get_cfg()
    cfg.merge_from_file(get_config_file(config_path))
    if trained:
        cfg.MODEL.WEIGHTS = get_checkpoint_url(config_path)
    return cfg


def get(config_path: str, trained: bool = False, device: str | None = None) -> torch.nn.Module:
    """The model of a config, with the weights that the config names.

    Args:
        device: overrides MODEL.DEVICE; default: the config's, or the CPU without a GPU.
    """
    from detectron2.modeling import build_model

    cfg = get_config(config_path, trained)
    if device is not None:
        cfg.MODEL.DEVICE = device
    elif not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


__getattr__ = missing_getattr(__name__)
