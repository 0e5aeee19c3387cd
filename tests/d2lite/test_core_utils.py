"""Small helpers: registry, logger, colours, files, memory, environment, pickling, analysis."""

import logging
import os
import pickle
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import detectron2
from detectron2.structures import Boxes, Instances
from detectron2.utils.analysis import (
    FlopCountAnalysis,
    activation_count_operators,
    find_unused_parameters,
    flop_count_operators,
    parameter_count_table,
)
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.colormap import colormap, random_color, random_colors
from detectron2.utils.env import TORCH_VERSION, seed_all_rng
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table, log_every_n, log_first_n, setup_logger
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.registry import Registry, locate
from detectron2.utils.serialize import PicklableWrapper

d2lite_only = pytest.mark.skipif(
    not getattr(detectron2, "__d2lite__", False), reason="states d2lite's behaviour"
)


# -- registry --------------------------------------------------------------------------------


def test_registry_finds_what_was_registered():
    registry = Registry("THINGS")

    @registry.register()
    def one():
        pass

    registry.register(int)
    assert registry.get("one") is one and "int" in registry
    assert dict(registry) == {"one": one, "int": int}
    with pytest.raises(KeyError, match="No object named 'two' found in 'THINGS' registry!"):
        registry.get("two")
    with pytest.raises(AssertionError):
        registry.register(int)


def test_locate_follows_dotted_names():
    assert locate("torch.nn.Linear") is nn.Linear
    assert locate("detectron2.structures.Boxes.cat").__func__ is Boxes.cat.__func__
    assert locate("os.path") is os.path


@d2lite_only
@pytest.mark.parametrize("name", ["torch.nn.Lineal", "no_such_module.x"])
def test_locate_names_what_it_cannot_find(name):
    with pytest.raises(ImportError, match=name):
        locate(name)


# -- logger ----------------------------------------------------------------------------------


@pytest.fixture
def name(request):
    """A logger of the test's own; handlers are removed afterwards."""
    name = f"d2lite_test_{request.node.name}"
    yield name
    logger = logging.getLogger(name)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


def test_console_and_file_lines(name, tmp_path, capsys):
    logger = setup_logger(str(tmp_path), name=name, abbrev_name="t", color=False)
    logging.getLogger(f"{name}.part").info("hello")
    assert capsys.readouterr().out.rstrip().endswith("t.part]: hello")
    text = (tmp_path / "log.txt").read_text()
    assert text.startswith("[") and text.endswith(f"{name}.part INFO: hello\n")
    assert logger.propagate is False and logger.level == logging.DEBUG


def test_second_identical_call_adds_no_handler(name, tmp_path):
    first = setup_logger(str(tmp_path), name=name)
    count = len(first.handlers)
    assert setup_logger(str(tmp_path), name=name) is first
    assert len(first.handlers) == count == 2


def test_other_ranks_write_to_their_own_file_only(name, tmp_path, capsys):
    setup_logger(str(tmp_path / "x.txt"), 2, name=name).warning("hi")
    assert capsys.readouterr().out == ""
    assert "WARNING: hi" in (tmp_path / "x.txt.rank2").read_text()


def test_warnings_are_marked_on_the_console(name, capsys):
    setup_logger(name=name).warning("careful")
    assert "WARNING" in capsys.readouterr().out


def test_repeated_messages_are_limited(name, caplog):
    with caplog.at_level(logging.INFO):
        for index in range(7):
            log_first_n(logging.INFO, "first", n=2, name=name)
            log_every_n(logging.INFO, "every", n=3, name=name)
            log_first_n(logging.INFO, f"message {index % 2}", key="message", name=name)
    messages = [record.getMessage() for record in caplog.records]
    assert messages.count("first") == 2
    assert messages.count("every") == 3
    assert messages.count("message 0") == messages.count("message 1") == 1


def test_small_table_is_one_row_of_pipes():
    header, _, row = create_small_table({"PQ": 52.12345, "SQ": 80.0}).splitlines()
    assert header.split("|")[1].strip() == "PQ"
    assert row.split("|")[1].strip() == "52.123"


# -- colours ---------------------------------------------------------------------------------


def test_palette_is_detectron2s():
    colors = colormap(rgb=True)
    assert colors.shape == (74, 3)
    expected = [(0, 113.985, 188.955), (216.75, 82.875, 24.99), (236.895, 176.97, 31.875)]
    np.testing.assert_allclose(colors[:3], expected, rtol=1e-5)
    np.testing.assert_allclose(colormap(maximum=1)[:, ::-1] * 255, colors, rtol=1e-5)


def test_random_colors_are_drawn_from_the_palette():
    random.seed(0)
    drawn = random_colors(74, rgb=True, maximum=1)
    assert len(np.unique(np.stack(drawn), axis=0)) == len(np.unique(colormap(), axis=0))
    assert random_color(rgb=True).shape == (3,)


# -- files -----------------------------------------------------------------------------------


def test_path_manager_works_on_local_files(tmp_path):
    PathManager.mkdirs(str(tmp_path / "a"))
    with PathManager.open(str(tmp_path / "a" / "x.txt"), "w") as stream:
        stream.write("hi")
    assert PathManager.ls(str(tmp_path / "a")) == ["x.txt"]
    assert PathManager.get_local_path(str(tmp_path / "a" / "x.txt")).endswith("x.txt")
    assert PathManager.isfile(str(tmp_path / "a" / "x.txt"))


@d2lite_only
def test_detectron2_addresses_point_to_the_public_store(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "iopath.common.file_io.HTTPURLHandler._get_local_path",
        lambda self, path, force=False, **kwargs: asked.append(path) or "/cached",
    )
    assert PathManager.get_local_path("detectron2://a/b.pkl") == "/cached"
    assert PathManager.get_local_path("catalog://ImageNetPretrained/MSRA/R-50") == "/cached"
    assert asked == [
        "https://dl.fbaipublicfiles.com/detectron2/a/b.pkl",
        "https://dl.fbaipublicfiles.com/detectron/ImageNetPretrained/MSRA/R-50.pkl",
    ]


# -- memory ----------------------------------------------------------------------------------


def test_out_of_memory_is_retried_and_other_errors_are_not():
    calls = []

    @retry_if_cuda_oom
    def hungry(x, fail):
        calls.append(x)
        if len(calls) <= fail:
            raise RuntimeError("CUDA out of memory. Tried to allocate")
        return x + 1

    assert hungry(torch.ones(1), fail=2).item() == 2
    assert len(calls) == 3

    @retry_if_cuda_oom
    def broken():
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        broken()


# -- environment -----------------------------------------------------------------------------


def test_seeding_makes_all_generators_repeat():
    def draw():
        seed_all_rng(5)
        return random.random(), np.random.rand(), torch.rand(1).item()

    assert draw() == draw()
    assert tuple(int(x) for x in torch.__version__.split(".")[:2]) == TORCH_VERSION


@d2lite_only
def test_report_says_who_provides_detectron2():
    first_row = collect_env_info().splitlines()[1]
    assert "detectron2 provided by" in first_row and "d2lite" in first_row


def test_report_runs_as_a_module():
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "detectron2.utils.collect_env"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert torch.__version__ in done.stdout


def test_custom_environment_module_is_run(tmp_path):
    (tmp_path / "mine.py").write_text("def setup_environment():\n    print('custom setup')\n")
    environment = {**os.environ, "DETECTRON2_ENV_MODULE": str(tmp_path / "mine.py")}
    done = subprocess.run(
        [sys.executable, "-c", "import detectron2"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert done.stdout == "custom setup\n"


# -- pickling --------------------------------------------------------------------------------


def test_wrapper_pickles_local_functions():
    offset = 3
    wrapped = PicklableWrapper(PicklableWrapper(lambda x: x + offset))
    assert pickle.loads(pickle.dumps(wrapped))(1) == 4


# -- analysis --------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.unused = nn.Linear(1, 1)

    def forward(self, inputs):
        x = self.conv(inputs[0]["image"][None].float())
        if self.training:
            return {"loss": x.sum()}
        instances = Instances((8, 8), boxes=Boxes(x[0, 0, :, :4]))
        return [{"sem_seg": x[0], "instances": instances, "note": "no tensor"}]


INPUTS = [{"image": torch.zeros(3, 8, 8), "height": 16, "file_name": "x.jpg"}]
CONV_FLOPS = 3 * 4 * 9 * 8 * 8


def test_flops_of_a_model_with_structured_inputs():
    flops = FlopCountAnalysis(Model().eval(), (INPUTS,))
    assert flops.total() == CONV_FLOPS
    assert flops.by_module()["model.conv"] == CONV_FLOPS


def test_operator_counts_restore_training_mode():
    model = Model().train()
    assert flop_count_operators(model, INPUTS)["conv"] == pytest.approx(CONV_FLOPS / 1e9)
    assert activation_count_operators(model, INPUTS)["conv"] == pytest.approx(4 * 64 / 1e6)
    assert model.training
    with pytest.raises(AssertionError):
        flop_count_operators(model, INPUTS * 2)


def test_unused_parameters_and_parameter_table():
    model = Model().train()
    assert find_unused_parameters(model, INPUTS) == ["unused.weight", "unused.bias"]
    assert "conv" in parameter_count_table(model)
