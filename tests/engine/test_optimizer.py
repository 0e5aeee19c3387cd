"""Groups and learning rates equal the published trainer's; merged steps change nothing."""

from pathlib import Path

import pytest
import torch
from parity_cases import facts
from torch import nn

from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.projects.deeplab import add_deeplab_config, build_lr_scheduler
from mask2former.config import add_maskformer2_config
from mask2former.engine import ConfigError
from mask2former.engine.optimizer import build_optimizer, parameter_groups

CONFIGS = Path(__file__).parent.parent.parent / "configs" / "coco" / "panoptic-segmentation"
RECORDED = {
    "groups_coco_panoptic_r50": "maskformer2_R50_bs16_50ep.yaml",
    "groups_coco_panoptic_swin_t": "swin/maskformer2_swin_tiny_bs16_50ep.yaml",
}


def config(file=None, *opts):
    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    if file:
        cfg.merge_from_file(str(CONFIGS / file))
    cfg.merge_from_list([*opts, "MODEL.DEVICE", "cpu"])
    return cfg


class Toy(nn.Module):
    """Parameters for every rule: backbone, norm, embedding, position table, plain."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.backbone.relative_position_bias_table = nn.Parameter(torch.ones(2))
        self.query = nn.Embedding(2, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.backbone(x) + self.query.weight[0]).pow(2).sum()


@pytest.mark.parametrize("case", RECORDED)
def test_groups_equal_the_published_trainer(case):
    import mask2former.modeling  # noqa: F401 - registers the network

    recorded = facts("optimizer", case)
    cfg = config(RECORDED[case])
    model = build_model(cfg)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = list(parameter_groups(cfg, model))
    assert [names[g["params"][0]] for g in groups] == recorded["order"]
    for group in groups:
        assert len(group["params"]) == 1
        name = names[group["params"][0]]
        assert [group["lr"], group["weight_decay"]] == pytest.approx(recorded["groups"][name])
        assert list(group["params"][0].shape) == recorded["param_shapes"][name]


@pytest.mark.parametrize("case", ["lr_multistep_coco_r50", "lr_poly_ade20k_r50"])
def test_learning_rates_equal_the_published_trainer(case):
    recorded = facts("optimizer", case)
    cfg = config()
    for key, value in recorded["config"].items():
        setattr(cfg.SOLVER, key, tuple(value) if isinstance(value, list) else value)
    head, backbone = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    base = cfg.SOLVER.BASE_LR
    groups = [
        {"params": [head], "lr": base},
        {"params": [backbone], "lr": base * cfg.SOLVER.BACKBONE_MULTIPLIER},
    ]
    optimizer = torch.optim.AdamW(groups)
    schedule = build_lr_scheduler(cfg, optimizer)
    wanted = {int(i): rates for i, rates in recorded["lr"].items()}
    optimizer.step()  # torch warns when a schedule moves before the first step
    for iteration in range(max(i for i in wanted if i <= 2000) + 1):
        if iteration in wanted:
            rates = [group["lr"] for group in optimizer.param_groups]
            assert rates == pytest.approx(wanted[iteration], rel=1e-9)
        schedule.step()


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("ADAMW", torch.optim.AdamW),
        ("SGD", lambda groups: torch.optim.SGD(groups, momentum=0.9)),
    ],
)
def test_merged_steps_equal_steps_of_single_groups(name, reference):
    cfg = config(None, "SOLVER.OPTIMIZER", name, "SOLVER.BASE_LR", 0.01)
    torch.manual_seed(0)
    ours, theirs = Toy(), Toy()
    theirs.load_state_dict(ours.state_dict())
    optimizers = build_optimizer(cfg, ours), reference(list(parameter_groups(cfg, theirs)))
    x = torch.randn(5, 3)
    for _ in range(4):
        for model, optimizer in zip((ours, theirs), optimizers):
            optimizer.zero_grad()
            model(x).backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_state_keeps_one_group_per_parameter():
    model = Toy()
    optimizer = build_optimizer(config(), model)
    model(torch.randn(5, 3)).backward()
    optimizer.step()
    state = optimizer.state_dict()
    assert [len(group["params"]) for group in state["param_groups"]] == [1] * 8
    build_optimizer(config(), model).load_state_dict(state)


def test_full_model_clipping_bounds_the_norm_of_all_gradients():
    opts = ["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model"]
    cfg = config(None, *opts, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.01)
    model = Toy()
    optimizer = build_optimizer(cfg, model)
    model(100 * torch.randn(5, 3)).backward()
    optimizer.step()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert norm == pytest.approx(0.01, rel=1e-3)


def test_other_clip_types_go_through_detectron2():
    opts = ["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "value"]
    cfg = config(None, *opts, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.5)
    model = Toy()
    optimizer = build_optimizer(cfg, model)
    model(100 * torch.randn(5, 3)).backward()
    optimizer.step()
    assert max(p.grad.abs().max() for p in model.parameters() if p.grad is not None) <= 0.5


def test_loss_scaling_leaves_unscaling_to_the_scaler():
    optimizer = build_optimizer(config(), Toy())
    assert not optimizer._step_supports_amp_scaling


def test_unknown_optimizer_names_the_key():
    with pytest.raises(ConfigError, match=r"SOLVER\.OPTIMIZER is 'LION'"):
        build_optimizer(config(None, "SOLVER.OPTIMIZER", "LION"), Toy())
