"""The training loop and its hooks: who is called when, and what they do."""

import json
import logging
import re

import pytest
import torch
from torch import nn
from two_losses import simple_trainer

from detectron2.engine import (
    BestCheckpointer,
    CallbackHook,
    EvalHook,
    HookBase,
    IterationTimer,
    LRScheduler,
    PeriodicWriter,
    PreciseBN,
    TrainerBase,
)
from detectron2.utils.events import EventWriter


class Recorder(HookBase):
    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def _note(self, what):
        self.calls.append((self.name, what, self.trainer.iter))

    def before_train(self):
        self._note("before_train")

    def after_train(self):
        self._note("after_train")

    def before_step(self):
        self._note("before_step")

    def after_backward(self):
        self._note("after_backward")

    def after_step(self):
        self._note("after_step")


class NoStep(TrainerBase):
    def run_step(self):
        pass


def test_hooks_are_called_in_order_of_registration_around_each_step():
    calls = []
    trainer = simple_trainer()
    trainer.register_hooks([Recorder("a", calls), None, Recorder("b", calls)])
    trainer.train(2, 4)
    per_step = ["before_step", "after_backward", "after_step"]
    expected = [("before_train", 2)]
    expected += [(what, i) for i in (2, 3) for what in per_step]
    expected += [("after_train", 4)]
    assert [(w, i) for n, w, i in calls if n == "a"] == expected
    assert [n for n, _, _ in calls] == ["a", "b"] * len(expected)


def test_after_train_runs_and_the_error_is_logged_when_a_step_fails(caplog):
    class Failing(TrainerBase):
        def run_step(self):
            raise RuntimeError("broken step")

    calls = []
    trainer = Failing()
    trainer.register_hooks([Recorder("a", calls)])
    with pytest.raises(RuntimeError, match="broken step"):
        trainer.train(0, 3)
    assert calls[-1] == ("a", "after_train", 0)
    assert "Exception during training" in caplog.text


def test_only_hooks_can_be_registered():
    with pytest.raises(AssertionError, match="not a HookBase"):
        NoStep().register_hooks(["text"])


def test_a_freed_trainer_is_not_kept_alive_by_its_hooks():
    hook = HookBase()
    trainer = NoStep()
    trainer.register_hooks([hook])
    del trainer
    with pytest.raises(ReferenceError):
        hook.trainer.iter  # noqa: B018


def test_hook_states_are_saved_by_class_name_and_unknown_ones_are_reported(caplog):
    class Stateful(HookBase):
        value = 5

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state):
            self.value = state["value"]

    trainer = NoStep()
    trainer.register_hooks([HookBase(), Stateful()])
    trainer.train(0, 3)
    state = trainer.state_dict()
    assert state["iteration"] == 3
    (name,) = state["hooks"]
    assert name.endswith("Stateful")

    other, hook = NoStep(), Stateful()
    hook.value = 0
    other.register_hooks([hook])
    other.load_state_dict({**state, "hooks": {**state["hooks"], "Gone": {"x": 1}}})
    assert (other.iter, hook.value) == (3, 5)
    assert "Gone" in caplog.text


def test_iteration_timer_leaves_out_the_warm_up_and_logs_totals(caplog):
    trainer = NoStep()
    trainer.register_hooks([IterationTimer(warmup_iter=3)])
    with caplog.at_level(logging.INFO):
        trainer.train(10, 16)
    assert [i for _, i in trainer.storage.history("time").values()] == [13, 14, 15]
    assert re.search(r"Overall training speed: 3 iterations in .* \([\d.]+ s / it\)", caplog.text)
    assert "Total training time" in caplog.text


def test_periodic_writer_writes_on_schedule_and_closes():
    class Writer(EventWriter):
        def __init__(self):
            self.written, self.closed = [], False

        def write(self):
            self.written.append(trainer.iter)

        def close(self):
            self.closed = True

    trainer, writer = NoStep(), Writer()
    trainer.register_hooks([PeriodicWriter([writer], period=3)])
    trainer.train(0, 8)
    assert writer.written == [2, 5, 7, 8]
    assert writer.closed


@pytest.mark.parametrize(("period", "expected"), [(3, [2, 5, 8]), (4, [3, 8]), (0, [8])])
def test_eval_hook_evaluates_on_schedule_and_once_at_the_end(period, expected):
    trainer = NoStep()
    evaluated = []

    def evaluate():
        evaluated.append(trainer.iter)
        return {"task": {"AP": 10.0 + trainer.iter}}

    trainer.register_hooks([EvalHook(period, evaluate)])
    trainer.train(0, 8)
    assert evaluated == expected
    assert trainer.storage.latest()["task/AP"] == (18.0, 8)
    assert not trainer.storage.smoothing_hints()["task/AP"]


def test_eval_hook_leaves_a_broken_training_alone():
    class Failing(TrainerBase):
        def run_step(self):
            raise RuntimeError

    evaluated = []
    trainer = Failing()
    trainer.register_hooks([EvalHook(0, lambda: evaluated.append(1))])
    with pytest.raises(RuntimeError):
        trainer.train(0, 1)
    assert evaluated == []


def test_eval_hook_names_a_metric_that_is_no_number():
    trainer = NoStep()
    trainer.register_hooks([EvalHook(1, lambda: {"a": {"b": "text"}})])
    with pytest.raises(ValueError, match="a/b"):
        trainer.train(0, 2)


def test_lr_hook_stores_the_rate_of_the_step_and_then_advances():
    trainer = simple_trainer()
    trainer.scheduler = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 1, gamma=0.5)
    trainer.register_hooks([LRScheduler()])
    trainer.train(0, 3)
    rates = [value for value, _ in trainer.storage.history("lr").values()]
    assert rates == pytest.approx([0.1, 0.05, 0.025])


def test_lr_hook_reports_the_most_common_rate_of_single_parameter_groups():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.01, 0.1, 0.1)]
    assert LRScheduler.get_best_param_group_id(torch.optim.SGD(groups, lr=1.0)) == 1
    groups[0]["params"] += [nn.Parameter(torch.zeros(1))]
    assert LRScheduler.get_best_param_group_id(torch.optim.SGD(groups, lr=1.0)) == 0


class FakeCheckpointer:
    save_to_disk = True

    def __init__(self, save_dir):
        self.save_dir, self.saved = str(save_dir), []

    def save(self, name, **extra):
        self.saved.append((name, extra))


def run_best(tmp_path, values, start=0, mode="max"):
    trainer, checkpointer = NoStep(), FakeCheckpointer(tmp_path)
    evaluate = EvalHook(1, lambda: {"t": {"PQ": values[trainer.iter - start]}})
    trainer.register_hooks([evaluate, BestCheckpointer(1, checkpointer, "t/PQ", mode)])
    trainer.train(start, start + len(values) - 1)
    return [extra["iteration"] for _, extra in checkpointer.saved]


def test_best_checkpointer_saves_improvements_only(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    values = [1.0, 3.0, 2.0, float("nan"), 4.0]
    assert run_best(tmp_path / "a", values) == [0, 1, 4]
    assert run_best(tmp_path / "b", values, mode="min") == [0]


def test_best_checkpointer_remembers_the_best_when_resumed(tmp_path):
    run_best(tmp_path, [5.0, 0.0, 1.0])  # the last step is evaluated once, after training
    assert json.loads((tmp_path / "model_best.json").read_text())["value"] == 5.0
    assert run_best(tmp_path, [4.0, 0.0, 6.0], start=2) == [4]


def test_best_checkpointer_says_which_metrics_there_are(tmp_path, caplog):
    trainer = NoStep()
    trainer.register_hooks([BestCheckpointer(1, FakeCheckpointer(tmp_path), "nope/PQ")])
    trainer.train(0, 2)
    assert "nope/PQ" in caplog.text


def test_precise_bn_replaces_the_running_statistics():
    model = nn.Sequential(nn.BatchNorm1d(2))
    model.train()
    batches = [torch.tensor([[1.0, 10.0], [3.0, 30.0]])] * 4
    trainer = NoStep()
    trainer.register_hooks([PreciseBN(0, model, batches, num_iter=4)])
    trainer.train(0, 1)
    assert model[0].running_mean.tolist() == pytest.approx([2.0, 20.0])


def test_callback_hook_calls_with_the_trainer():
    seen = []
    trainer = NoStep()
    trainer.register_hooks([CallbackHook(before_step=lambda t: seen.append(t.iter))])
    trainer.train(0, 2)
    assert seen == [0, 1]
