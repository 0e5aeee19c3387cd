"""The host hardly ever waits for the device; without a GPU this shows on a device that is none."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mask2former.benchmark import cli
from mask2former.benchmark.networks.setting import Setting
from mask2former.benchmark.syncs import counting, pretend_device
from mask2former.benchmark.syncs.pretend_device import DEVICE, Elsewhere, watching
from mask2former.ops import libraries

TINY = "tests/fixtures/engine/tiny.yaml"
SEMASK = "tests/fixtures/engine/tiny_semask.yaml"
MOST = 3  # the goal, for a training step, and for inference with post-processing


@pytest.fixture(autouse=True)
def from_the_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def setting(config=TINY, **changes):
    return Setting(config, size=(64, 96), output=(50, 70), threads=1, images=2, **changes)


def files(waits):
    return {wait.where.partition(":")[0] for wait in waits.places}


@pytest.mark.parametrize("config", [TINY, SEMASK])
def test_inference_waits_twice(config):
    waits = counting.count("inference", setting(config))
    assert 0 < waits.number <= 2, waits.places
    assert files(waits) == {"modeling/postprocessing/inference.py"}


@pytest.mark.parametrize("config", [TINY, SEMASK])
def test_a_training_step_waits_for_the_assignment_and_the_losses(config):
    waits = counting.count("training", setting(config))
    assert 0 < waits.number <= MOST, waits.places


def test_a_training_step_in_bfloat16_waits_no_more():
    assert 0 < counting.count("training", setting(dtype="bfloat16")).number <= MOST


def test_with_intra_batch_supervision_a_step_waits_no_more():
    options = ("MODEL.MASK_FORMER.APPLY_IBS", "True")
    assert 0 < counting.count("training", setting(opts=options)).number <= MOST


def test_without_compiled_kernels_waits_are_counted_too(monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "FOLDER", tmp_path)
    libraries.load.cache_clear()
    try:
        assert 0 < counting.count("inference", setting()).number <= 2
    finally:
        libraries.load.cache_clear()


def test_one_more_wait_is_seen(monkeypatch):
    from mask2former.modeling.criterion import SetCriterion

    usual = counting.count("training", setting()).number
    forward = SetCriterion.forward

    def printing_the_loss(self, *args):
        losses = forward(self, *args)
        float(losses["loss_ce"])
        return losses

    monkeypatch.setattr(SetCriterion, "forward", printing_the_loss)
    assert counting.count("training", setting()).number == usual + 1


WAITING = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.sum() > 0),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "copy into a host tensor": lambda x: torch.empty(4).copy_(x),
    "nonzero": lambda x: x.nonzero(),
    "where without values": lambda x: torch.where(x > 0),
    "mask as an index": lambda x: x[x > 0],
    "setting by a mask": lambda x: x.__setitem__(x > 0, x[:1]),
    "unique": lambda x: x.unique(),
    "comparison": lambda x: torch.equal(x, x),
    "blocking copy to the device": lambda x: torch.ones(2).to(x.device),
}


@pytest.mark.parametrize("act", WAITING.values(), ids=WAITING.keys())
def test_what_makes_the_host_wait_is_counted_once(act):
    with watching() as watched:
        x = Elsewhere(torch.arange(4.0))
        act(x)
    assert len(watched.waits) == 1


QUIET = {
    "arithmetic": lambda x: x * 2 + x.mean(),
    "in place": lambda x: x.add_(1).mul_(2),
    "copy on the device": lambda x: x.clone().copy_(x),
    "non-blocking copy to the device": lambda x: torch.ones(2).to(x.device, non_blocking=True),
    "where with values": lambda x: torch.where(x > 0, x, 0),
    "index of integers": lambda x: x[torch.zeros(2, dtype=torch.int64, device=x.device)],
    "made on the device": lambda x: torch.zeros(3, device=x.device),
    "host alone": lambda x: torch.ones(3)[torch.ones(3) > 0].sum().item(),
}


@pytest.mark.parametrize("act", QUIET.values(), ids=QUIET.keys())
def test_what_needs_no_waiting_is_not_counted(act):
    with watching() as watched:
        act(Elsewhere(torch.arange(4.0)))
    assert watched.waits == []


def test_numbers_and_gradients_are_those_of_the_cpu():
    layer, x = nn.Linear(3, 2), torch.rand(5, 3)
    layer(x).square().sum().backward()
    expected = layer.weight.grad.clone()
    layer.weight.grad = None
    layer.bias.grad = None
    with watching():
        pretend_device.move(layer)
        output = layer(x.to(DEVICE))
        output.square().sum().backward()
        assert output.device == layer.weight.grad.device == DEVICE
        torch.testing.assert_close(layer.weight.grad.cpu(), expected)


def test_the_command_prints_places_and_fails_above_the_limit(tmp_path, capsys):
    path = tmp_path / "waits.json"
    arguments = ["syncs", "--config-file", TINY, "--size", "64", "96", "--subject", "inference"]
    assert cli.main([*arguments, "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "inference: the host waits 2 times (counted on a device that is none)" in printed
    assert "1 x a copy to the host: modeling/postprocessing/inference.py:" in printed
    assert json.loads(path.read_text())["synchronisations"]["inference"]["waits"] == 2
    assert cli.main([*arguments, "--most", "1"]) == 1
    assert "more than 1: inference" in capsys.readouterr().err


def test_only_waiting_calls_within_the_step_are_taken_from_a_profile():
    def event(name, start):
        return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start, end=start + 1))

    with (
        torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile,
        torch.profiler.record_function(counting._WATCHED),
    ):
        torch.ones(3).sum()
    events = list(profile.events())
    (window,) = (e.time_range for e in events if e.name == counting._WATCHED)
    events += [event("cudaStreamSynchronize", window.start)] * 2
    events += [event("cudaDeviceSynchronize", window.end + 1)]  # the one that ends the profile
    events += [event("cudaLaunchKernel", window.start)]
    events += [event("Memcpy DtoH (Device -> Pageable)", window.end + 1)]  # the device is behind
    assert counting._calls_within(events) == {
        "cudaStreamSynchronize": 2,
        "Memcpy DtoH (Device -> Pageable)": 1,
    }


@pytest.mark.gpu
@pytest.mark.parametrize("subject", ["inference", "training"])
def test_on_a_gpu_the_host_waits_as_rarely(subject):
    waits = counting.count(subject, setting(device="cuda"))
    assert 0 < waits.number <= MOST, (waits.places, waits.calls)
