"""Looks into the time and memory of single iterations."""

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch

from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ..base_trainer import HookBase

__all__ = ["AutogradProfiler", "CallbackHook", "TorchMemoryStats", "TorchProfiler"]


class CallbackHook(HookBase):
    """A hook from functions, each called with the trainer."""

    def __init__(
        self,
        *,
        before_train: Callable[[Any], None] | None = None,
        after_train: Callable[[Any], None] | None = None,
        before_step: Callable[[Any], None] | None = None,
        after_step: Callable[[Any], None] | None = None,
    ) -> None:
        self._before_train = before_train
        self._after_train = after_train
        self._before_step = before_step
        self._after_step = after_step

    def _call(self, function: Callable[[Any], None] | None) -> None:
        if function is not None:
            function(self.trainer)

    def before_train(self) -> None:
        self._call(self._before_train)

    def after_train(self) -> None:
        self._call(self._after_train)
        # Closures often hold the trainer: break the cycle.
        del self._before_train, self._after_train, self._before_step, self._after_step

    def before_step(self) -> None:
        self._call(self._before_step)

    def after_step(self) -> None:
        self._call(self._after_step)


class TorchProfiler(HookBase):
    """Runs ``torch.profiler`` on the iterations that a predicate selects.

    Args:
        enable_predicate: called with the trainer before each iteration.
        output_dir: traces go to ``profiler_iter<N>.json``, tables to ``profiler_iter<N>.txt``.
        activities: default: CPU, and CUDA where there is one.
        save_tensorboard: also write traces for TensorBoard's profiler into ``log/``.
    """

    def __init__(
        self,
        enable_predicate: Callable[[Any], bool],
        output_dir: str,
        *,
        activities: Iterable[torch.profiler.ProfilerActivity] | None = None,
        save_tensorboard: bool = True,
    ) -> None:
        self._enable_predicate = enable_predicate
        self._output_dir = output_dir
        self._activities = activities
        self._save_tensorboard = save_tensorboard
        self._profiler: torch.profiler.profile | None = None

    def before_step(self) -> None:
        if not self._enable_predicate(self.trainer):
            return
        handler = None
        if self._save_tensorboard:
            handler = torch.profiler.tensorboard_trace_handler(
                os.path.join(self._output_dir, "log", f"profiler_iter{self.trainer.iter}"),
                f"worker{comm.get_rank()}",
            )
        self._profiler = torch.profiler.profile(
            activities=self._activities,
            on_trace_ready=handler,
            record_shapes=True,
            profile_memory=True,
            with_stack=True,
        )
        self._profiler.__enter__()

    def after_step(self) -> None:
        if self._profiler is None:
            return
        profiler, self._profiler = self._profiler, None
        profiler.__exit__(None, None, None)
        PathManager.mkdirs(self._output_dir)
        stem = os.path.join(self._output_dir, f"profiler_iter{self.trainer.iter}")
        if not self._save_tensorboard:
            profiler.export_chrome_trace(f"{stem}.json")
        with PathManager.open(f"{stem}.txt", "w") as f:
            f.write(profiler.key_averages().table(sort_by="cpu_time_total", row_limit=100))


class AutogradProfiler(TorchProfiler):
    """The older interface: a Chrome trace per selected iteration.

    Args:
        use_cuda: also measure kernels, where there is CUDA.
    """

    def __init__(
        self, enable_predicate: Callable[[Any], bool], output_dir: str, *, use_cuda: bool = True
    ) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if use_cuda and torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        super().__init__(
            enable_predicate, output_dir, activities=activities, save_tensorboard=False
        )


class TorchMemoryStats(HookBase):
    """Logs CUDA memory every ``period`` iterations, ``max_runs`` times."""

    def __init__(self, output_dir: str, period: int = 20, max_runs: int = 10) -> None:
        self._output_dir = output_dir
        self._period = period
        self._max_runs = max_runs
        self._runs = 0

    def after_step(self) -> None:
        if not torch.cuda.is_available() or self._runs == self._max_runs:
            return
        done = self.trainer.iter + 1
        if done % self._period and done != self.trainer.max_iter:
            return
        self._runs += 1
        mib = 1024.0 * 1024.0
        logging.getLogger(__name__).info(
            "iter: %d  max reserved: %.0fMB  reserved: %.0fMB  max allocated: %.0fMB  "
            "allocated: %.0fMB",
            self.trainer.iter,
            torch.cuda.max_memory_reserved() / mib,
            torch.cuda.memory_reserved() / mib,
            torch.cuda.max_memory_allocated() / mib,
            torch.cuda.memory_allocated() / mib,
        )
        torch.cuda.reset_peak_memory_stats()
