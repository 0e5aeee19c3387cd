"""Writes checkpoints: every so often, and when a metric is better than ever."""

import json
import logging
import math
import operator
import os

from fvcore.common.checkpoint import Checkpointer
from fvcore.common.checkpoint import PeriodicCheckpointer as _PeriodicCheckpointer

from detectron2.utils.file_io import PathManager

from ..base_trainer import HookBase

__all__ = ["BestCheckpointer", "PeriodicCheckpointer"]


class PeriodicCheckpointer(_PeriodicCheckpointer, HookBase):
    """fvcore's PeriodicCheckpointer as a hook: ``model_0004999.pth``, ..., ``model_final.pth``."""

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        self.step(self.trainer.iter)


class BestCheckpointer(HookBase):
    """Keeps the checkpoint with the best value of a metric. Register it after the EvalHook.

    What the best value was is remembered in ``<file_prefix>.json`` beside the checkpoint, so that
    a resumed training does not overwrite it with something worse.

    Args:
        eval_period: of the EvalHook, in iterations.
        val_metric: name in the storage, such as ``panoptic_seg/PQ``.
        mode: "max" or "min".
        file_prefix: the checkpoint is ``<file_prefix>.pth``.

    Raises:
        AssertionError: another mode.
    """

    def __init__(
        self,
        eval_period: int,
        checkpointer: Checkpointer,
        val_metric: str,
        mode: str = "max",
        file_prefix: str = "model_best",
    ) -> None:
        if mode not in ("max", "min"):
            raise AssertionError(f"BestCheckpointer: mode must be 'max' or 'min', got '{mode}'")
        self._period = eval_period
        self._checkpointer = checkpointer
        self._val_metric = val_metric
        self._is_better = operator.gt if mode == "max" else operator.lt
        self._file_prefix = file_prefix
        self.best_metric: float | None = None
        self.best_iter: int | None = None

    @property
    def _record(self) -> str:
        return os.path.join(self._checkpointer.save_dir, f"{self._file_prefix}.json")

    def before_train(self) -> None:
        if self.trainer.start_iter > 0 and PathManager.isfile(self._record):
            with PathManager.open(self._record) as f:
                record = json.load(f)
            if record["metric"] == self._val_metric:
                self.best_metric, self.best_iter = record["value"], record["iteration"]

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._check()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._check()

    def _check(self) -> None:
        """Compares the latest value and saves the model when it is the best so far."""
        logger = logging.getLogger(__name__)
        latest = self.trainer.storage.latest().get(self._val_metric)
        if latest is None:
            logger.warning(
                "No value of '%s' yet, so no best checkpoint. Metrics so far: %s",
                self._val_metric,
                ", ".join(sorted(self.trainer.storage.latest())) or "none",
            )
            return
        value, iteration = latest
        if not math.isfinite(value):
            return
        if self.best_metric is not None and not self._is_better(value, self.best_metric):
            logger.info(
                "%s is %.5f, not better than the best %.5f of iteration %d",
                self._val_metric,
                value,
                self.best_metric,
                self.best_iter,
            )
            return
        self.best_metric, self.best_iter = value, iteration
        self._checkpointer.save(self._file_prefix, iteration=iteration)
        if self._checkpointer.save_to_disk:
            with PathManager.open(self._record, "w") as f:
                record = {"metric": self._val_metric, "value": value, "iteration": iteration}
                json.dump(record, f)
        logger.info(
            "Best %s so far: %.5f at iteration %d, saved as %s.pth",
            self._val_metric,
            value,
            iteration,
            self._file_prefix,
        )
