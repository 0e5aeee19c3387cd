"""Learning rates over the iterations, parameter groups, gradient clipping."""

import parity_cases
import pytest
import torch
from fvcore.common.param_scheduler import CosineParamScheduler
from torch import nn

from detectron2.config import get_cfg
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.projects.deeplab import build_lr_scheduler as build_deeplab_scheduler
from detectron2.solver import (
    LRMultiplier,
    WarmupCosineLR,
    WarmupMultiStepLR,
    WarmupParamScheduler,
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
)
from detectron2.solver.build import maybe_add_gradient_clipping, reduce_param_groups


def sgd(*rates):
    return torch.optim.SGD(
        [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates], lr=1.0
    )


def rates_over(scheduler, iterations):
    """The first group's rate in each iteration."""
    rates = []
    for _ in range(iterations):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def solver_cfg(name, **options):
    cfg = get_cfg()
    add_deeplab_config(cfg)
    values = {
        "BASE_LR": 1.0,
        "MAX_ITER": 10,
        "WARMUP_ITERS": 3,
        "WARMUP_FACTOR": 0.1,
        "STEPS": (6, 9),
        "GAMMA": 0.1,
        "BASE_LR_END": 0.0,
        **options,
    }
    cfg.SOLVER.LR_SCHEDULER_NAME = name
    for key, value in values.items():
        cfg.SOLVER[key] = value
    return cfg


# detectron2's own values, recorded.
MULTI_STEP = [0.1, 0.4, 0.7, 1, 1, 1, 0.1, 0.1, 0.1, 0.01]
COSINE = [0.1, 0.3313, 0.5626, 0.7939, 0.6545, 0.5, 0.3455, 0.2061, 0.0955, 0.0245]
POLY = [0.1, 0.3638, 0.5726, 0.7254, 0.6314, 0.5359, 0.4384, 0.3384, 0.2349, 0.1259]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("WarmupMultiStepLR", MULTI_STEP), ("WarmupCosineLR", COSINE), ("WarmupPolyLR", POLY)],
)
def test_schedules_have_detectron2s_values(name, expected):
    scheduler = build_deeplab_scheduler(solver_cfg(name), sgd(1.0))
    assert rates_over(scheduler, 10) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("case", ["lr_multistep_coco_r50", "lr_poly_ade20k_r50"])
def test_published_schedules_have_the_recorded_rates(case):
    recorded = parity_cases.facts("optimizer", case)
    options = {k: v for k, v in recorded["config"].items() if k != "BACKBONE_MULTIPLIER"}
    base = options["BASE_LR"]
    optimizer = sgd(base, base * recorded["config"]["BACKBONE_MULTIPLIER"])
    scheduler = build_deeplab_scheduler(
        solver_cfg(options.pop("LR_SCHEDULER_NAME"), **options), optimizer
    )
    for iteration, expected in recorded["lr"].items():
        scheduler.last_epoch = int(iteration)
        assert scheduler.get_lr() == pytest.approx(expected, rel=1e-9)


def test_steps_after_the_end_are_ignored_with_a_warning(caplog):
    scheduler = build_lr_scheduler(solver_cfg("WarmupMultiStepLR", STEPS=(6, 30)), sgd(1.0))
    assert rates_over(scheduler, 10)[-1] == pytest.approx(0.1)
    assert "SOLVER.STEPS" in caplog.text and "30" in caplog.text


def test_a_step_at_the_very_end_changes_nothing():
    scheduler = build_lr_scheduler(solver_cfg("WarmupMultiStepLR", STEPS=(6, 10)), sgd(1.0))
    assert rates_over(scheduler, 10)[-1] == pytest.approx(0.1)


def test_fixed_gamma_steps_are_equally_long():
    scheduler = build_lr_scheduler(
        solver_cfg("WarmupStepWithFixedGammaLR", WARMUP_ITERS=0, NUM_DECAYS=1), sgd(1.0)
    )
    assert rates_over(scheduler, 10) == pytest.approx([1] * 5 + [0.1] * 5)


def test_unknown_schedule_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'Zigzag'.*WarmupCosineLR"):
        build_lr_scheduler(solver_cfg("Zigzag"), sgd(1.0))


def test_constant_warmup_stays_at_its_factor():
    cfg = solver_cfg("WarmupMultiStepLR", WARMUP_METHOD="constant")
    assert rates_over(build_lr_scheduler(cfg, sgd(1.0)), 4) == pytest.approx([0.1, 0.1, 0.1, 1])


def test_rescaled_warmup_enters_the_schedule_at_its_beginning():
    multiplier = WarmupParamScheduler(CosineParamScheduler(1, 0), 0.0, 0.5, rescale_interval=True)
    assert [multiplier(x) for x in (0, 0.25, 0.5, 0.75)] == pytest.approx([0, 0.5, 1, 0.5])


def test_multiplier_state_is_base_rates_and_iteration_only():
    scheduler = build_lr_scheduler(solver_cfg("WarmupMultiStepLR"), sgd(1.0))
    rates_over(scheduler, 4)
    assert scheduler.state_dict() == {"base_lrs": [1.0], "last_epoch": 4}


def test_multiplier_refuses_other_schedules():
    with pytest.raises(ValueError, match="ParamScheduler"):
        LRMultiplier(sgd(1.0), lambda x: 1.0, max_iter=10)


def test_old_style_classes_have_their_formulas():
    steps = WarmupMultiStepLR(sgd(1.0), [6, 9], warmup_factor=0.1, warmup_iters=3)
    assert rates_over(steps, 10) == pytest.approx(MULTI_STEP)
    cosine = WarmupCosineLR(sgd(1.0), 10, warmup_factor=0.1, warmup_iters=0)
    assert rates_over(cosine, 6)[5] == pytest.approx(0.5)


# --- groups -----------------------------------------------------------------------------------


def small_model():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 4))


def options_of(groups, parameter):
    (group,) = [g for g in groups if any(p is parameter for p in g["params"])]
    return {k: v for k, v in group.items() if k != "params"}


def test_norms_and_biases_take_their_own_options():
    model = small_model()
    groups = get_default_optimizer_params(
        model, base_lr=1.0, weight_decay=0.1, weight_decay_norm=0.0, bias_lr_factor=2.0
    )
    assert options_of(groups, model[0].weight) == {"lr": 1.0, "weight_decay": 0.1}
    assert options_of(groups, model[1].weight) == {"lr": 1.0, "weight_decay": 0.0}
    assert options_of(groups, model[2].bias) == {"lr": 2.0, "weight_decay": 0.1}


def test_frozen_parameters_are_left_out_and_shared_ones_appear_once():
    model = small_model()
    model[0].weight.requires_grad = False
    model[2].weight = model[2].weight
    model.add_module("again", model[2])
    parameters = [p for g in get_default_optimizer_params(model, base_lr=1.0) for p in g["params"]]
    assert len(parameters) == len({id(p) for p in parameters}) == 5


def test_rate_factor_sees_full_names_and_overrides_win():
    model = small_model()
    groups = get_default_optimizer_params(
        model,
        base_lr=1.0,
        lr_factor_func=lambda name: 0.1 if name.startswith("2.") else 1.0,
        overrides={"bias": {"lr": 5.0}},
    )
    assert options_of(groups, model[2].weight) == {"lr": 0.1}
    assert options_of(groups, model[2].bias) == {"lr": 5.0}


def test_groups_with_equal_options_are_merged():
    a, b, c = (nn.Parameter(torch.zeros(1)) for _ in range(3))
    merged = reduce_param_groups(
        [{"params": [a], "lr": 1.0}, {"params": [b], "lr": 2.0}, {"params": [c], "lr": 1.0}]
    )
    assert [g["params"] for g in merged] == [[a, c], [b]]


def test_bias_factor_without_a_base_rate_is_refused():
    with pytest.raises(ValueError, match="base_lr"):
        get_default_optimizer_params(small_model(), bias_lr_factor=2.0)


def test_build_optimizer_is_sgd_with_the_configs_values():
    cfg = solver_cfg("WarmupMultiStepLR", WEIGHT_DECAY=0.5, MOMENTUM=0.8)
    optimizer = build_optimizer(cfg, small_model())
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["momentum"] == 0.8
    assert optimizer.param_groups[0]["weight_decay"] == 0.5


# --- clipping ---------------------------------------------------------------------------------


def clip_cfg(kind, value=1.0):
    cfg = get_cfg()
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = kind
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = value
    return cfg


@pytest.mark.parametrize(("kind", "expected"), [("value", [-1.0, -1.0]), ("norm", [-0.6, -0.8])])
@pytest.mark.parametrize("as_class", [True, False])
def test_each_parameter_is_clipped_before_the_step(kind, expected, as_class):
    parameter = nn.Parameter(torch.zeros(2))
    if as_class:
        optimizer = maybe_add_gradient_clipping(clip_cfg(kind), torch.optim.SGD)(
            [parameter], lr=1.0
        )
    else:
        plain = torch.optim.SGD([parameter], lr=1.0)
        optimizer = maybe_add_gradient_clipping(clip_cfg(kind), plain)
        assert optimizer is plain
    assert type(optimizer).__name__ == "SGDWithGradientClip"
    parameter.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    assert parameter.tolist() == pytest.approx(expected, abs=1e-5)


def test_no_clipping_unless_enabled():
    assert maybe_add_gradient_clipping(get_cfg(), torch.optim.AdamW) is torch.optim.AdamW


def test_unknown_clip_type_is_named():
    with pytest.raises(ValueError, match=r"CLIP_TYPE 'full_model'.*value, norm"):
        maybe_add_gradient_clipping(clip_cfg("full_model"), torch.optim.SGD)
