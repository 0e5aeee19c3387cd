"""Mixed precision where the machine can, float32 and one warning where it cannot."""

import logging

import pytest
import torch

from mask2former.engine import ConfigError, load_config, precision
from mask2former.engine.precision import autocast_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def amp(dtype="auto"):
    return load_config("", ["SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.DTYPE", dtype])


@pytest.fixture
def machine(monkeypatch):
    def make(cpu=False, gpu=False):
        monkeypatch.setattr(precision, "cpu_has_bfloat16", lambda: cpu)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: gpu)

    return make


def test_disabled_is_float32():
    assert autocast_dtype(load_config("", []), CUDA) is None


def test_auto_on_cuda_is_float16_as_published(machine):
    machine(gpu=True)
    assert autocast_dtype(amp(), CUDA) is torch.float16


def test_auto_on_a_cpu_with_bfloat16_uses_it(machine):
    machine(cpu=True)
    assert autocast_dtype(amp(), CPU) is torch.bfloat16


@pytest.mark.parametrize(
    ("dtype", "device"),
    [("auto", CPU), ("float16", CPU), ("bfloat16", CUDA), ("auto", torch.device("mps"))],
)
def test_incapable_machine_goes_on_in_float32_and_says_so_once(machine, caplog, dtype, device):
    machine()
    with caplog.at_level(logging.WARNING, logger="mask2former"):
        assert autocast_dtype(amp(dtype), device) is None
    assert len(caplog.records) == 1
    assert "goes on in float32" in caplog.text


def test_bfloat16_by_name_is_used_on_any_cpu(machine):
    machine()
    assert autocast_dtype(amp("bfloat16"), CPU) is torch.bfloat16


def test_unknown_type_names_the_key():
    with pytest.raises(ConfigError, match=r"SOLVER\.AMP\.DTYPE is 'half'"):
        autocast_dtype(amp("half"), CPU)
