"""The inference loop, several evaluators at once, and how results are shown and verified."""

import logging
import re

import pytest
import torch
from torch import nn

from detectron2.config import get_cfg
from detectron2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_context,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.evaluation.testing import flatten_results_dict


class Sum(DatasetEvaluator):
    def __init__(self, task="task"):
        self.task = task

    def reset(self):
        self.total = 0

    def process(self, inputs, outputs):
        self.total += sum(outputs)

    def evaluate(self):
        return {self.task: {"sum": self.total}}


class Double(nn.Module):
    def forward(self, batch):
        assert not self.training and not torch.is_grad_enabled()
        return [2 * x for x in batch]


def test_the_model_runs_in_evaluation_mode_and_gets_its_mode_back():
    model = Double().train()
    assert inference_on_dataset(model, [[1, 2], [3]], Sum()) == {"task": {"sum": 12}}
    assert model.training


def test_an_evaluator_is_reset_first_and_may_be_missing_or_a_list():
    evaluator = Sum()
    evaluator.total = 100
    assert inference_on_dataset(Double(), [[1]], [evaluator, Sum("other")]) == {
        "task": {"sum": 2},
        "other": {"sum": 2},
    }
    assert inference_on_dataset(Double(), [[1]], None) == {}


def test_no_result_becomes_an_empty_one():
    class Silent(DatasetEvaluator):
        pass

    assert inference_on_dataset(Double(), [[1]], Silent()) == {}


def test_plain_functions_can_be_evaluated():
    assert inference_on_dataset(lambda batch: batch, [[1], [5]], Sum())["task"]["sum"] == 6


def test_two_evaluators_must_not_report_the_same_task():
    evaluators = DatasetEvaluators([Sum(), Sum()])
    evaluators.reset()
    with pytest.raises(AssertionError, match="'task'"):
        evaluators.evaluate()


def test_callbacks_surround_the_loop_and_each_batch():
    calls = []
    names = ["start", "before_inference", "after_inference", "end"]
    callbacks = {name: (lambda name=name: calls.append(name)) for name in names}
    inference_on_dataset(Double(), [[1], [2]], None, callbacks=callbacks)
    assert calls == ["start", *["before_inference", "after_inference"] * 2, "end"]


def test_the_log_lines_are_detectron2s(caplog, monkeypatch):
    # Progress is logged every five seconds only; here every time.
    monkeypatch.setattr(
        "detectron2.evaluation.evaluator.log_every_n_seconds",
        lambda level, message, **_: logging.getLogger("test").log(level, message),
    )
    with caplog.at_level(logging.INFO):
        inference_on_dataset(Double(), [[1]] * 8, Sum())
    text = caplog.text
    assert "Start inference on 8 batches" in text
    seconds = r"\d+\.\d{4} s/iter"
    assert re.search(
        rf"Inference done \d+/8\. Dataloading: {seconds}\. Inference: {seconds}\. "
        rf"Eval: {seconds}\. Total: {seconds}\. ETA=\d+:\d\d:\d\d",
        text,
    )
    per_device = r"\d:\d\d:\d\d.* \(\d+\.\d{6} s / iter per device, on 1 devices\)"
    assert re.search(rf"Total inference time: {per_device}", text)
    assert re.search(rf"Total inference pure compute time: {per_device}", text)


def test_inference_context_restores_the_mode_after_an_error():
    model = nn.Identity().train()
    with pytest.raises(RuntimeError), inference_context(model):
        assert not model.training
        raise RuntimeError
    assert model.training


def test_csv_lines_leave_out_metrics_of_single_classes(caplog):
    with caplog.at_level(logging.INFO):
        print_csv_format({"sem_seg": {"mIoU": 12.34567, "fwIoU": 1.0, "IoU-a": 5.0}, "x": 3})
    assert [r.getMessage() for r in caplog.records] == [
        "copypaste: Task: sem_seg",
        "copypaste: mIoU,fwIoU",
        "copypaste: 12.3457,1.0000",
        "copypaste: x=3",
    ]


def test_results_are_flattened_at_any_depth():
    assert flatten_results_dict({"a": {"b": {"c": 1}}, "d": 2}) == {"a/b/c": 1, "d": 2}


def test_verification_accepts_the_tolerance_and_ends_the_process_otherwise(caplog):
    cfg = get_cfg()
    assert verify_results(cfg, {})
    cfg.TEST.EXPECTED_RESULTS = [["segm", "AP", 40.0, 0.5]]
    assert verify_results(cfg, {"segm": {"AP": 40.4}})
    for results in ({"segm": {"AP": 39.0}}, {"segm": {"AP": float("nan")}}, {}):
        with pytest.raises(SystemExit) as error:
            verify_results(cfg, results)
        assert error.value.code == 1
    assert "Result verification failed" in caplog.text
