"""tools/analyze_model.py: what it counts equals what is computed by hand; it runs as published."""

import re
import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mask2former.data.datasets import register_all_shapes
from mask2former.ops import ms_deform_attn, use_implementation
from mask2former.utils.op_counts import count_activations, count_flops, module_table

REPO = Path(__file__).parents[2]


class Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def test_convolutions_and_products_count_one_flop_a_multiply_add():
    conv = nn.Conv2d(3, 8, 3, padding=1)
    assert count_flops(conv, torch.rand(1, 3, 10, 20)).total == 3 * 3 * 3 * 8 * 10 * 20
    assert count_flops(nn.Linear(7, 5), torch.rand(4, 7)).total == 4 * 7 * 5


def test_fused_attention_counts_like_its_two_products():
    q, k = torch.rand(1, 2, 6, 8), torch.rand(1, 2, 10, 8)
    mask = torch.zeros(6, 10)
    fused = Lambda(lambda q, k: F.scaled_dot_product_attention(q, k, k, attn_mask=mask))
    plain = Lambda(lambda q, k: (q @ k.mT).softmax(-1) @ k)
    assert count_flops(fused, q, k).total == count_flops(plain, q, k).total == 2 * 2 * 6 * 10 * 8
    assert count_activations(fused, q, k).total == count_activations(plain, q, k).total


def test_deformable_attention_counts_five_multiply_adds_a_sample_and_channel():
    shapes = [(4, 5), (2, 3)]
    value = torch.rand(1, 26, 2, 8)
    locations, weights = torch.rand(1, 9, 2, 2, 4, 2), torch.rand(1, 9, 2, 2, 4)
    op = Lambda(lambda v, x, w: ms_deform_attn(v, shapes, None, x, w))
    with use_implementation("kernel"):
        counts = count_flops(op, value, locations, weights)
    assert dict(counts.by_operator) == {"ms_deform_attn": 5 * 9 * 2 * 2 * 4 * 8}


def test_modules_that_are_not_called_have_the_sum_of_their_children():
    net = nn.Module()
    net.parts = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 2)])
    net.forward = lambda x: net.parts[1](net.parts[0](x))
    counts = count_flops(net, torch.rand(1, 4))
    assert counts.by_module["parts"] == counts.by_module[""] == 16 + 8
    assert "parts" in module_table(net, counts, "GFlops")


def test_counting_leaves_the_parameters_trainable():
    net = nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    count_flops(net, torch.rand(1, 2))
    assert (net.weight.requires_grad, net.bias.requires_grad) == (True, False)


# ------------------------------------------------------------------------- the command line


@pytest.fixture
def sets(project):
    """Overrides that name the project's pictures: registered here, whatever root came first."""
    register_all_shapes(str(project.root), prefix="analyzed")
    train, test = "analyzed_panoptic_train", "analyzed_panoptic_val_with_sem_seg"
    return ("DATASETS.TRAIN", f"('{train}',)", "DATASETS.TEST", f"('{test}',)")


def run(capsys, *arguments) -> tuple[int, str]:
    main = runpy.run_path(str(REPO / "tools/analyze_model.py"))["main"]
    status = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return status, output.out + output.err


def test_all_tasks_report_in_the_published_form(project, sets, capsys):
    tasks = ("--tasks", "flop", "activation", "parameter", "structure", "-n", "2")
    status, text = run(capsys, *tasks, "--config-file", project.config, *sets)
    assert status == 0
    for pattern in (
        r"Flops table computed from only one input sample:\n\| module",
        r"Average GFlops for each type of operators:\n\[\('",
        r"Total GFlops: \d+\.\d±\d+\.\d\n",
        r"\(Million\) Activations for Each Type of Operators:\n\[\('",
        r"Total \(Million\) Activations: \d+\.\d±\d+\.\d\n",
        r"Parameter Count:\n\| name",
        r"Model Structure:\nMaskFormer\(",
    ):
        assert re.search(pattern, text), pattern


def test_one_input_is_enough(project, sets, capsys):
    status, text = run(
        capsys, "--tasks", "activation", "-n", 1, "--config-file", project.config, *sets
    )
    assert status == 0
    assert "±0.0" in text


def test_fixed_size_gives_every_image_the_same_count(project, sets, capsys):
    arguments = ("--tasks", "flop", "-n", 2, "--use-fixed-input-size")
    size = (*sets, "INPUT.CROP.SIZE", "(64, 64)")
    status, text = run(capsys, *arguments, "--config-file", project.config, *size)
    assert status == 0
    assert "±0.0" in text


def test_random_image_of_a_given_size_needs_no_data_set(project, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    arguments = ("--tasks", "flop", "--input-size", 64, 96, "--config-file", project.config)
    assert run(capsys, *arguments)[0] == 0


def test_missing_data_set_points_to_the_flag_that_needs_none(
    project, capsys, monkeypatch, tmp_path
):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    coco = ("DATASETS.TEST", "('coco_2017_val_panoptic_with_sem_seg',)")
    status, text = run(capsys, "--tasks", "flop", "--config-file", project.config, *coco)
    assert status == 2
    assert "--input-size" in text


def test_wrong_flags_end_with_status_2(project, capsys):
    arguments = ("--tasks", "flop", "--config-file", project.config)
    assert run(capsys, *arguments, "--eval-only")[0] == 2
    assert run(capsys, *arguments, "-n", 0)[0] == 2
    status, text = run(capsys, "--tasks", "flop", "--config-file", "gone.py")
    assert status == 2
    assert "gone.py" in text
    with pytest.raises(SystemExit, match="2"):
        run(capsys, "--config-file", project.config)


@pytest.mark.parametrize(
    ("config", "published"),
    [
        # Parameters and multiply-adds at 800x1344 of the published networks (billions), post-
        # processing left out.
        ("coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml", 534 / 2),
        ("coco/panoptic-segmentation/swin/maskformer2_swin_tiny_bs16_50ep.yaml", 547 / 2),
        (
            "coco/panoptic-segmentation/swin/maskformer2_swin_large_IN21k_384_bs16_100ep.yaml",
            2025 / 2,
        ),
    ],
)
def test_published_networks_count_near_the_published_figures(config, published):
    from detectron2.modeling import build_model
    from mask2former.conversion.infer_config import config_from

    options = {"MODEL.DEVICE": "meta", "MODEL.WEIGHTS": ""}
    with torch.device("meta"):
        model = build_model(config_from(options, REPO / "configs" / config)).eval()
        network = Lambda(lambda image: model.sem_seg_head(model.backbone(image)))
        network.model = model
        counts = count_flops(network, torch.empty(1, 3, 800, 1344))
    assert counts.total / 1e9 == pytest.approx(published, rel=0.08)
