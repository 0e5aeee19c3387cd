"""Writers: the training line on the console, a JSON line per write, TensorBoard."""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
import time
from functools import cached_property
from typing import Any

import torch

from detectron2.utils._event_storage import EventStorage, get_event_storage
from detectron2.utils.file_io import PathManager


class EventWriter:
    """Reads the current EventStorage and writes some of it somewhere."""

    def write(self) -> None:
        """Write what is new in ``get_event_storage()``."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish; called once after training."""


class CommonMetricPrinter(EventWriter):
    """One console line: remaining time, iteration, losses, timings, learning rate, memory."""

    def __init__(self, max_iter: int | None = None, window_size: int = 20) -> None:
        """
        Args:
            max_iter: for the remaining time; None leaves it out.
            window_size: losses are shown as the median over this many iterations.
        """
        self.logger = logging.getLogger("detectron2.utils.events")
        self._max_iter = max_iter
        self._window_size = window_size
        self._last_write: tuple[int, float] | None = None  # (iteration, clock)

    def _get_eta(self, storage: EventStorage) -> str | None:
        if self._max_iter is None:
            return None
        iteration = storage.iter
        try:
            seconds = float(storage.history("time").median(1000)) * (self._max_iter - iteration - 1)
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            return str(datetime.timedelta(seconds=int(seconds)))
        except KeyError:
            # Nobody measures the iteration time: estimate from our own calls.
            eta = None
            now = time.perf_counter()
            if self._last_write is not None and iteration > self._last_write[0]:
                last_iteration, last_clock = self._last_write
                per_iteration = (now - last_clock) / (iteration - last_iteration)
                seconds = per_iteration * (self._max_iter - iteration - 1)
                eta = str(datetime.timedelta(seconds=int(seconds)))
            self._last_write = (iteration, now)
            return eta

    def _median(self, storage: EventStorage, name: str) -> str:
        samples = storage.count_samples(name, self._window_size)
        return f"{name}: {storage.history(name).median(samples):.4g}"

    def write(self) -> None:
        storage = get_event_storage()
        iteration = storage.iter
        if iteration == self._max_iter:
            # EvalHook writes once more after the last iteration; no line for that.
            return
        histories = storage.histories()

        columns = []
        eta = self._get_eta(storage)
        if eta is not None:
            columns.append(f"eta: {eta}")
        columns.append(f"iter: {iteration}")
        columns += [self._median(storage, name) for name in histories if "loss" in name]
        columns += [self._median(storage, name) for name in histories if "[metric]" in name]
        if "time" in histories:
            # The mean since start-up; the first iterations are not measured (IterationTimer).
            columns.append(f"time: {histories['time'].global_avg():.4f}")
            columns.append(f"last_time: {histories['time'].latest():.4f}")
        if "data_time" in histories:
            samples = storage.count_samples("data_time", self._window_size)
            columns.append(f"data_time: {histories['data_time'].avg(samples):.4f}")
            columns.append(f"last_data_time: {histories['data_time'].latest():.4f}")
        rate = f"{histories['lr'].latest():.5g}" if "lr" in histories else "N/A"
        columns.append(f" lr: {rate}")
        if torch.cuda.is_available():
            columns.append(f"max_mem: {torch.cuda.max_memory_allocated() / 1024**2:.0f}M")
        self.logger.info(" " + "  ".join(columns))


class JSONWriter(EventWriter):
    """Appends a JSON object per line: ``iteration`` and the scalars that are new since the last.

    Values are medians over the window where the smoothing hint asks for it.
    """

    def __init__(self, json_file: str, window_size: int = 20) -> None:
        self._file_handle = PathManager.open(json_file, "a")
        self._window_size = window_size
        self._last_write = -1

    def write(self) -> None:
        storage = get_event_storage()
        by_iteration: dict[int, dict[str, float]] = {}
        for name, (value, iteration) in storage.latest_with_smoothing_hint(
            self._window_size
        ).items():
            if iteration > self._last_write:
                by_iteration.setdefault(iteration, {})[name] = value
        for iteration, scalars in sorted(by_iteration.items()):
            scalars["iteration"] = iteration
            self._file_handle.write(json.dumps(scalars, sort_keys=True) + "\n")
        if by_iteration:
            self._last_write = max(by_iteration)
        self._file_handle.flush()
        with contextlib.suppress(AttributeError, OSError):  # remote files have no descriptor
            os.fsync(self._file_handle.fileno())

    def close(self) -> None:
        self._file_handle.close()


class TensorboardXWriter(EventWriter):
    """Scalars, images and histograms for TensorBoard."""

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        """
        Args:
            kwargs: passed to ``torch.utils.tensorboard.SummaryWriter``.
        """
        self._window_size = window_size
        self._writer_args = {"log_dir": log_dir, **kwargs}
        self._last_write = -1

    @cached_property
    def _writer(self) -> Any:
        # Not before the first write: importing tensorboard is slow.
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(**self._writer_args)

    def write(self) -> None:
        storage = get_event_storage()
        newest = self._last_write
        for name, (value, iteration) in storage.latest_with_smoothing_hint(
            self._window_size
        ).items():
            if iteration > self._last_write:
                self._writer.add_scalar(name, value, iteration)
                newest = max(newest, iteration)
        self._last_write = newest

        # Only one writer may show images, since writing them clears them.
        for name, image, iteration in storage._vis_data:
            self._writer.add_image(name, image, iteration)
        storage.clear_images()
        for histogram in storage._histograms:
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()

    def close(self) -> None:
        if "_writer" in self.__dict__:
            self._writer.close()
