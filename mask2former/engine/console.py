"""The training line: remaining time, losses, timings, memory; on a terminal also a live one."""

import datetime
import logging
import resource
import sys
from contextlib import ExitStack

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

logger = logging.getLogger(__name__)

_LOGGERS = ("detectron2", "fvcore", "mask2former")


class ConsoleLine(EventWriter):
    """detectron2's training line, with memory on machines without a GPU, too.

    Args:
        max_iter: for the remaining time.
        window: losses are medians over this many iterations.
    """

    def __init__(self, max_iter: int, window: int = 20):
        self._max_iter = max_iter
        self._window = window

    def write(self) -> None:
        storage = get_event_storage()
        # detectron2's EvalHook writes once more after the last iteration.
        if storage.iter < self._max_iter:
            logger.info(" " + "  ".join(self._columns(storage)))

    def _columns(self, storage: EventStorage) -> list[str]:
        histories = storage.histories()
        columns = []
        if "time" in histories:
            left = histories["time"].median(1000) * (self._max_iter - storage.iter - 1)
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            columns.append(f"eta: {datetime.timedelta(seconds=int(left))}")
        columns.append(f"iter: {storage.iter}")
        for kind in ("loss", "[metric]"):
            columns += [
                f"{name}: {history.median(self._window):.4g}"
                for name, history in histories.items()
                if kind in name
            ]
        if "time" in histories:
            columns.append(f"time: {histories['time'].global_avg():.4f}")
            columns.append(f"last_time: {histories['time'].latest():.4f}")
        if "data_time" in histories:
            columns.append(f"data_time: {histories['data_time'].avg(self._window):.4f}")
            columns.append(f"last_data_time: {histories['data_time'].latest():.4f}")
        if "lr" in histories:
            columns.append(f" lr: {histories['lr'].latest():.5g}")
        columns.append(f"max_mem: {peak_memory() / 2**20:.0f}M")
        return columns


class ProgressBar(HookBase):
    """A line that is rewritten in place after every iteration. Does nothing without a terminal."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._bar: tqdm | None = None

    def before_train(self) -> None:
        if not sys.stderr.isatty():
            return
        loggers = [logging.getLogger(name) for name in _LOGGERS]
        self._stack.enter_context(logging_redirect_tqdm(loggers))
        self._bar = self._stack.enter_context(
            tqdm(
                initial=self.trainer.start_iter,
                total=self.trainer.max_iter,
                unit="it",
                dynamic_ncols=True,
                leave=False,
            )
        )

    def after_step(self) -> None:
        if self._bar is None:
            return
        histories = self.trainer.storage.histories()
        if "total_loss" in histories:
            loss = histories["total_loss"].median(20)
            self._bar.set_postfix_str(f"loss {loss:.3g}", refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        self._stack.close()
        self._bar = None


def peak_memory() -> int:
    """Bytes: the allocator's peak on a GPU, the process's peak resident size without one."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
