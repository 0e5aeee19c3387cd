"""How long iterations take, and when metrics are written."""

import datetime
import logging
import time
from collections.abc import Iterable

from fvcore.common.timer import Timer

from detectron2.utils.events import EventWriter

from ..base_trainer import HookBase

__all__ = ["IterationTimer", "PeriodicWriter"]


class IterationTimer(HookBase):
    """Puts the seconds of each iteration into the storage (``time``) and sums up at the end.

    Hooks registered before this one count as part of the iteration, hooks after it do not.

    Args:
        warmup_iter: first iterations that are not measured (caches, cudnn's search).
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        self._warmup_iter = warmup_iter
        self._step_timer = Timer()
        self._start_time = time.perf_counter()
        self._total_timer = Timer()

    def before_train(self) -> None:
        self._start_time = time.perf_counter()
        self._total_timer.reset()
        self._total_timer.pause()

    def before_step(self) -> None:
        self._step_timer.reset()
        self._total_timer.resume()

    def after_step(self) -> None:
        # What is in the warm-up is counted from the iteration where *this run* began.
        done = self.trainer.iter - self.trainer.start_iter + 1
        if done > self._warmup_iter:
            self.trainer.storage.put_scalars(time=self._step_timer.seconds())
        else:
            self._start_time = time.perf_counter()
            self._total_timer.reset()
        self._total_timer.pause()

    def after_train(self) -> None:
        logger = logging.getLogger(__name__)
        total = time.perf_counter() - self._start_time
        in_steps = self._total_timer.seconds()
        measured = self.trainer.iter - self.trainer.start_iter - self._warmup_iter
        if measured > 0 and in_steps > 0:
            logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                measured,
                datetime.timedelta(seconds=int(in_steps)),
                in_steps / measured,
            )
        logger.info(
            "Total training time: %s (%s on hooks)",
            datetime.timedelta(seconds=int(total)),
            datetime.timedelta(seconds=max(0, int(total - in_steps))),
        )


class PeriodicWriter(HookBase):
    """Calls ``writer.write()`` every ``period`` iterations, after the last one, and at the end."""

    def __init__(self, writers: Iterable[EventWriter], period: int = 20) -> None:
        self._writers = list(writers)
        for writer in self._writers:
            if not isinstance(writer, EventWriter):
                raise AssertionError(f"{writer!r} is not an EventWriter")
        self._period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            # Whatever other hooks put into the storage after the last iteration.
            writer.write()
            writer.close()
