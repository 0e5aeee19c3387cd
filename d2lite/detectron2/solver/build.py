"""Optimizer and learning-rate schedule from a config."""

import logging
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    StepWithFixedGammaParamScheduler,
)

from detectron2._missing import missing_getattr
from detectron2.config import CfgNode

from .grad_clip import GradientClipType, maybe_add_gradient_clipping
from .lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler

__all__ = [
    "CosineParamScheduler",
    "GradientClipType",
    "LRMultiplier",
    "MultiStepParamScheduler",
    "StepWithFixedGammaParamScheduler",
    "WarmupParamScheduler",
    "build_lr_scheduler",
    "build_optimizer",
    "get_default_optimizer_params",
    "maybe_add_gradient_clipping",
    "reduce_param_groups",
]

# Modules whose own parameters take WEIGHT_DECAY_NORM.
NORM_MODULES = (
    torch.nn.BatchNorm1d,
    torch.nn.BatchNorm2d,
    torch.nn.BatchNorm3d,
    torch.nn.SyncBatchNorm,
    torch.nn.GroupNorm,
    torch.nn.InstanceNorm1d,
    torch.nn.InstanceNorm2d,
    torch.nn.InstanceNorm3d,
    torch.nn.LayerNorm,
    torch.nn.LocalResponseNorm,
)


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum over the model's trainable parameters, as ``cfg.SOLVER`` says."""
    solver = cfg.SOLVER
    params = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    optimizer = torch.optim.SGD(
        params,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
    )
    return maybe_add_gradient_clipping(cfg, optimizer)


def get_default_optimizer_params(
    model: torch.nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, one per combination of hyper-parameters.

    Args:
        model: frozen parameters are left out, shared ones appear once.
        base_lr, weight_decay: default of every group; None leaves it to the optimizer.
        weight_decay_norm: for the parameters of normalisation layers.
        bias_lr_factor: factor on ``base_lr`` for parameters called ``bias``; needs ``base_lr``.
        weight_decay_bias: for parameters called ``bias``, norm layers included.
        lr_factor_func: full parameter name -> factor on ``base_lr``; needs ``base_lr``.
        overrides: parameter's own name (last part) -> options that win over everything else.

    Raises:
        ValueError: a factor without ``base_lr``, or "bias" overridden twice.
    """
    defaults = {k: v for k, v in (("lr", base_lr), ("weight_decay", weight_decay)) if v is not None}
    by_name = {name: dict(options) for name, options in (overrides or {}).items()}
    bias: dict[str, float] = {}
    if bias_lr_factor is not None and bias_lr_factor != 1.0:
        if base_lr is None:
            raise ValueError("bias_lr_factor (SOLVER.BIAS_LR_FACTOR) needs base_lr")
        bias["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        bias["weight_decay"] = weight_decay_bias
    if bias:
        if "bias" in by_name:
            raise ValueError("options for 'bias' are given in overrides and by bias arguments")
        by_name["bias"] = bias
    if lr_factor_func is not None and base_lr is None:
        raise ValueError("lr_factor_func needs base_lr")

    groups, seen = [], set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            options = dict(defaults)
            if isinstance(module, NORM_MODULES) and weight_decay_norm is not None:
                options["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                full_name = f"{module_name}.{name}" if module_name else name
                options["lr"] *= lr_factor_func(full_name)
            options.update(by_name.get(name, {}))
            groups.append({"params": [parameter], **options})
    return reduce_param_groups(groups)


def reduce_param_groups(params: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merges groups with equal options: far fewer kernels in a multi-tensor optimizer step.

    A parameter that occurs in several groups takes the options of all, the later ones winning.
    """
    options_of: dict[torch.nn.Parameter, dict[str, Any]] = defaultdict(dict)
    for group in params:
        options = {k: v for k, v in group.items() if k != "params"}
        for parameter in group["params"]:
            options_of[parameter].update(options)
    merged = defaultdict(list)
    for parameter, options in options_of.items():
        merged[tuple(options.items())].append(parameter)
    return [{"params": parameters, **dict(key)} for key, parameters in merged.items()]


class _EqualSteps(StepWithFixedGammaParamScheduler):
    """fvcore's schedule, which has no value at the very end, where the last step() asks for one."""

    def __call__(self, where: float) -> float:
        return super().__call__(min(where, 1 - 2 * self.WHERE_EPSILON))


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The schedule ``cfg.SOLVER.LR_SCHEDULER_NAME``, with warm-up.

    Raises:
        ValueError: unknown name.
    """
    solver = cfg.SOLVER
    name = solver.LR_SCHEDULER_NAME
    if name == "WarmupMultiStepLR":
        # A step at MAX_ITER itself would be the rate of an iteration that is not run.
        steps = [step for step in solver.STEPS if step < solver.MAX_ITER]
        if len(steps) != len(solver.STEPS):
            logging.getLogger(__name__).warning(
                "SOLVER.STEPS from SOLVER.MAX_ITER (%d) on are ignored: %s",
                solver.MAX_ITER,
                [step for step in solver.STEPS if step >= solver.MAX_ITER],
            )
        multiplier = MultiStepParamScheduler(
            values=[solver.GAMMA**k for k in range(len(steps) + 1)],
            milestones=steps,
            num_updates=solver.MAX_ITER,
        )
    elif name == "WarmupCosineLR":
        end_value = solver.BASE_LR_END / solver.BASE_LR
        if not 0.0 <= end_value <= 1.0:
            raise AssertionError(
                f"SOLVER.BASE_LR_END {solver.BASE_LR_END} must lie between 0 and "
                f"SOLVER.BASE_LR {solver.BASE_LR}"
            )
        multiplier = CosineParamScheduler(1, end_value)
    elif name == "WarmupStepWithFixedGammaLR":
        multiplier = _EqualSteps(
            base_value=1.0,
            gamma=solver.GAMMA,
            num_decays=solver.NUM_DECAYS,
            num_updates=solver.MAX_ITER,
        )
    else:
        raise ValueError(
            f"Unknown SOLVER.LR_SCHEDULER_NAME '{name}'; known here: WarmupMultiStepLR, "
            "WarmupCosineLR, WarmupStepWithFixedGammaLR (and WarmupPolyLR through "
            "detectron2.projects.deeplab.build_lr_scheduler)"
        )
    multiplier = WarmupParamScheduler(
        multiplier,
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=multiplier, max_iter=solver.MAX_ITER)


__getattr__ = missing_getattr(__name__)
