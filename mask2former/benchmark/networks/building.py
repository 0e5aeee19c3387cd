"""Our network with random weights, and the same weights in transformers."""

import copy
from typing import Any

import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from mask2former.conversion import load_in_transformers, to_huggingface
from mask2former.engine.errors import ConfigError


def build_network(cfg: CfgNode) -> nn.Module:
    """The model of a config with the same random weights every time, in evaluation mode.

    Sampling offsets and batch statistics, which start regular, are moved: a mistake in them would
    otherwise not show. Without metadata of the training set, the first half of the classes are
    things.
    """
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    generator = torch.Generator().manual_seed(1)

    def move(tensor: torch.Tensor, scale: float) -> None:
        noise = torch.randn(tensor.shape, generator=generator)
        tensor.data += scale * noise.to(tensor.device)

    for name, parameter in model.named_parameters():
        if "sampling_offsets" in name:
            move(parameter, 0.01 if parameter.dim() > 1 else 0.5)
        elif "attention_weights" in name:
            move(parameter, 0.05)
    for module in model.backbone.modules():
        if isinstance(module, (nn.BatchNorm2d, FrozenBatchNorm2d)):
            move(module.running_mean, 0.05)
            module.running_var.data += 0.5
            module.weight.data *= 0.8
    if getattr(model.metadata, "thing_dataset_id_to_contiguous_id", None) is None:
        half = max(1, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES // 2)
        model.metadata = copy.copy(model.metadata or MetadataCatalog.get("__benchmark__"))
        model.metadata.thing_dataset_id_to_contiguous_id = {i: i for i in range(half)}
    return model


def thing_ids(model: nn.Module) -> frozenset[int]:
    """Contiguous ids of thing classes."""
    return frozenset(model.metadata.thing_dataset_id_to_contiguous_id.values())


def in_transformers(model: nn.Module, cfg: CfgNode) -> Any:
    """``Mask2FormerForUniversalSegmentation`` with the weights of ``model``, on its device.

    Raises:
        ConfigError: transformers is not installed.
        WeightsError: it has no such network.
    """
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            "--peer transformers: the package is not installed; pip install transformers, or use "
            "--peer reference"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    return load_in_transformers(*to_huggingface(state, cfg)).to(model.device)
