"""What an evaluator is, and the loop that feeds it."""

import datetime
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from detectron2._missing import missing_getattr
from detectron2.utils.comm import get_world_size, is_main_process
from detectron2.utils.logger import log_every_n_seconds

__all__ = [
    "DatasetEvaluator",
    "DatasetEvaluators",
    "get_world_size",
    "inference_context",
    "inference_on_dataset",
    "is_main_process",
    "log_every_n_seconds",
]


class DatasetEvaluator:
    """Accumulates what it needs of inputs and outputs, then computes metrics."""

    def reset(self) -> None:
        """Prepares for a new round; called before the first batch."""

    def process(self, inputs: list[dict], outputs: Any) -> None:
        """Takes one batch.

        Args:
            inputs: what the model got.
            outputs: what the model returned, usually one dict per input.
        """

    def evaluate(self) -> dict | None:
        """Computes the metrics when all batches were processed; called on every rank.

        Returns:
            task -> metric -> number, on the main process at least; other ranks may return None.
        """


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators as one.

    Raises (in ``evaluate``):
        AssertionError: two of them report the same task.
    """

    def __init__(self, evaluators: list[DatasetEvaluator]) -> None:
        super().__init__()
        self._evaluators = evaluators

    def reset(self) -> None:
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict], outputs: Any) -> None:
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> OrderedDict:
        results: OrderedDict = OrderedDict()
        for evaluator in self._evaluators:
            own = evaluator.evaluate()
            if own is None or not is_main_process():
                continue
            for task, metrics in own.items():
                if task in results:
                    raise AssertionError(f"Different evaluators produce results with key '{task}'")
                results[task] = metrics
        return results


class _Clock:
    """Seconds spent in the phases of the loop, not counting the first batches."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.warmup = min(5, max(0, total - 1))
        self.restart(0)

    def restart(self, done: int) -> None:
        self.begin = time.perf_counter()
        self.before = done
        self.data = self.compute = self.eval = 0.0

    def progress(self, done: int) -> str:
        """The line of progress after ``done`` batches."""
        count = max(1, done - self.before)
        per_batch = (time.perf_counter() - self.begin) / count
        left = datetime.timedelta(seconds=int(per_batch * (self.total - done)))
        return (
            f"Inference done {done}/{self.total}. "
            f"Dataloading: {self.data / count:.4f} s/iter. "
            f"Inference: {self.compute / count:.4f} s/iter. "
            f"Eval: {self.eval / count:.4f} s/iter. "
            f"Total: {per_batch:.4f} s/iter. ETA={left}"
        )

    def log_totals(self, logger: logging.Logger) -> None:
        """The two closing lines."""
        count = max(1, self.total - self.before)
        lines = {
            "Total inference time": time.perf_counter() - self.begin,
            "Total inference pure compute time": self.compute,
        }
        for what, seconds in lines.items():
            logger.info(
                "%s: %s (%.6f s / iter per device, on %d devices)",
                what,
                datetime.timedelta(seconds=int(seconds)),
                seconds / count,
                get_world_size(),
            )


def inference_on_dataset(
    model: nn.Module | Callable,
    data_loader: Iterable,
    evaluator: DatasetEvaluator | list[DatasetEvaluator] | None,
    callbacks: dict[str, Callable[[], None]] | None = None,
) -> dict:
    """Runs a model over a loader and evaluates what comes out.

    The model is called without gradients, in evaluation mode (which is restored afterwards).

    Args:
        data_loader: must have a length; yields what the model takes.
        evaluator: None only runs the model.
        callbacks: functions without arguments, called at "start", "before_inference",
            "after_inference" and "end"; "start" and "end" are around the whole loop.

    Returns:
        what ``evaluator.evaluate()`` returns; ``{}`` instead of None.
    """

    def call(name: str) -> None:
        if callbacks is not None and name in callbacks:
            callbacks[name]()

    logger = logging.getLogger(__name__)
    total = len(data_loader)
    logger.info("Start inference on %d batches", total)

    if evaluator is None:
        evaluator = DatasetEvaluators([])
    elif isinstance(evaluator, list | tuple):
        evaluator = DatasetEvaluators(list(evaluator))
    evaluator.reset()

    clock = _Clock(total)
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(inference_context(model))
        stack.enter_context(torch.no_grad())
        call("start")
        mark = time.perf_counter()
        for done, inputs in enumerate(data_loader, start=1):
            clock.data += time.perf_counter() - mark
            if done - 1 == clock.warmup:
                clock.restart(clock.warmup)

            mark = time.perf_counter()
            call("before_inference")
            outputs = model(inputs)
            call("after_inference")
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # or the evaluator would be charged for the model's time
            clock.compute += time.perf_counter() - mark

            mark = time.perf_counter()
            evaluator.process(inputs, outputs)
            clock.eval += time.perf_counter() - mark
            if done > clock.warmup + 1 or done == total:
                log_every_n_seconds(logging.INFO, clock.progress(done), n=5, name=__name__)
            mark = time.perf_counter()
        call("end")
    clock.log_totals(logger)

    results = evaluator.evaluate()
    return {} if results is None else results


@contextmanager
def inference_context(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode and back into the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


__getattr__ = missing_getattr(__name__)
