"""The published optimizer: one parameter group per parameter, full-model gradient clipping.

Group layout, learning rates and decays are those of Mask2Former's train_net.py (which has them from
MaskFormer), so optimizer states of published checkpoints load. The update itself is run over merged
groups, see :class:`_MergedGroups`.
"""

from collections.abc import Iterator

import torch
from torch import nn

from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping

from .errors import ConfigError
from .layer_decay import decays, layer_scales

_NORMS = (
    nn.modules.batchnorm._BatchNorm,  # BatchNorm1d/2d/3d and SyncBatchNorm
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
# Swin's position parameters do not decay (Liu et al., ICCV 2021, appendix A2).
_NO_DECAY = ("relative_position_bias_table", "absolute_pos_embed")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Builds AdamW or SGD over ``model`` as ``cfg.SOLVER`` says.

    With ``CLIP_GRADIENTS.CLIP_TYPE == "full_model"`` every step first scales all gradients together
    to a 2-norm of at most CLIP_VALUE; other types clip per parameter (detectron2).

    Raises:
        ConfigError: SOLVER.OPTIMIZER is neither ADAMW nor SGD.
    """
    solver = cfg.SOLVER
    groups = list(parameter_groups(cfg, model))
    clip = solver.CLIP_GRADIENTS
    full_model = clip.CLIP_TYPE == "full_model"
    max_norm = clip.CLIP_VALUE if clip.ENABLED and full_model and clip.CLIP_VALUE > 0 else None
    options = {"lr": solver.BASE_LR, "max_norm": max_norm, "fused": _can_fuse(groups)}
    if solver.OPTIMIZER == "ADAMW":
        optimizer = MergedAdamW(groups, **options)
    elif solver.OPTIMIZER == "SGD":
        optimizer = MergedSGD(groups, momentum=solver.MOMENTUM, **options)
    else:
        raise ConfigError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}; possible are ADAMW and SGD")
    return optimizer if full_model else maybe_add_gradient_clipping(cfg, optimizer)


def parameter_groups(cfg: CfgNode, model: nn.Module) -> Iterator[dict]:
    """One group ``{params, lr, weight_decay}`` per trainable parameter, in module order.

    ``BACKBONE_MULTIPLIER`` scales the rate of parameters whose module path contains "backbone";
    norm layers decay by WEIGHT_DECAY_NORM, embeddings by WEIGHT_DECAY_EMBED, Swin's position
    tables not at all. With ``LAYER_DECAY`` below 1 the rule of ``layer_decay`` replaces that for
    decays, and scales rates.

    Raises:
        ConfigError: LAYER_DECAY is not in (0, 1], or the backbone has no layers.
    """
    solver = cfg.SOLVER
    scales = _layer_scales(solver.LAYER_DECAY, model)
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            group = {"params": [parameter], "lr": solver.BASE_LR}
            group["weight_decay"] = solver.WEIGHT_DECAY
            if "backbone" in module_name:
                group["lr"] = solver.BASE_LR * solver.BACKBONE_MULTIPLIER
            if any(part in name for part in _NO_DECAY):
                group["weight_decay"] = 0.0
            if isinstance(module, _NORMS):
                group["weight_decay"] = solver.WEIGHT_DECAY_NORM
            if isinstance(module, nn.Embedding):
                group["weight_decay"] = solver.WEIGHT_DECAY_EMBED
            if scales:
                group["lr"] *= scales[f"{module_name}.{name}".removeprefix(".")]
                group["weight_decay"] = solver.WEIGHT_DECAY if decays(parameter) else 0.0
            yield group


def _layer_scales(rate: float, model: nn.Module) -> dict[str, float]:
    """Rate factors by parameter name; empty where they are off."""
    if rate == 1.0:
        return {}
    if not 0.0 < rate < 1.0:
        raise ConfigError(f"SOLVER.LAYER_DECAY is {rate}; it must be in (0, 1], and 1 is off")
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    # DistributedDataParallel puts "module." in front.
    prefix = next((n[: n.index("backbone.") + 9] for n in names if "backbone." in n), "backbone.")
    try:
        return layer_scales(names, rate, prefix)
    except ValueError as error:
        raise ConfigError(f"SOLVER.LAYER_DECAY {rate}: {error}; set it to 1") from error


class _MergedGroups:
    """Mixed in before a torch optimizer: clips, then steps groups with equal settings together.

    Hundreds of groups of one parameter each would mean hundreds of tiny kernels; merged by (rate,
    decay, ...) they are a handful of fused ones. Only ``step`` sees the merged groups, the state
    and its dict keep one group per parameter.
    """

    def __init__(self, params, *, max_norm: float | None, **kwargs):
        super().__init__(params, **kwargs)
        self._max_norm = max_norm
        # Clipping needs unscaled gradients: GradScaler has to unscale before it calls step, which
        # it leaves to optimizers that declare support for scaled gradients.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure=None):
        groups = self.param_groups
        if self._max_norm is not None:
            parameters = [p for group in groups for p in group["params"]]
            # Stays on the device: the factor is a tensor, never compared on the host.
            nn.utils.clip_grad_norm_(parameters, self._max_norm)
        self.param_groups = _merge(groups)
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups


class MergedAdamW(_MergedGroups, torch.optim.AdamW):
    """AdamW with full-model clipping and merged steps."""


class MergedSGD(_MergedGroups, torch.optim.SGD):
    """SGD with full-model clipping and merged steps."""


def _merge(groups: list[dict]) -> list[dict]:
    merged: dict[tuple, dict] = {}
    for group in groups:
        settings = {key: value for key, value in group.items() if key != "params"}
        key = tuple(settings[name] for name in sorted(settings))
        merged.setdefault(key, {"params": [], **settings})["params"].extend(group["params"])
    return list(merged.values())


def _can_fuse(groups: list[dict]) -> bool:
    parameters = [p for group in groups for p in group["params"]]
    return bool(parameters) and all(
        p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters
    )
