"""Better batch-norm statistics before an evaluation."""

import itertools
import logging

from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from torch import nn
from torch.utils.data import DataLoader

from detectron2.utils.events import EventStorage

from ..base_trainer import HookBase

__all__ = ["PreciseBN", "get_bn_modules", "update_bn_stats"]


class PreciseBN(HookBase):
    """Replaces running batch-norm statistics by averages over many batches.

    Running averages lag behind the weights (Wu & Johnson 2021, arXiv 2105.07576). Register it
    before the EvalHook.

    Args:
        period: iterations between updates; 0: only after the last iteration.
        model: on each rank the local one; its forward runs in training mode.
        data_loader: endless; the batches for the statistics.
        num_iter: number of batches.
    """

    def __init__(
        self, period: int, model: nn.Module, data_loader: DataLoader, num_iter: int
    ) -> None:
        self._logger = logging.getLogger(__name__)
        self._period = period
        self._num_iter = num_iter
        self._model = model
        self._data_loader = data_loader
        self._data_iter = None
        self._disabled = not get_bn_modules(model)
        if self._disabled:
            self._logger.info("PreciseBN is off: the model has no batch norm in training mode")

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self._period > 0 and done % self._period == 0):
            self.update_stats()

    def update_stats(self) -> None:
        """Computes the statistics now."""
        if self._disabled:
            return
        if self._data_iter is None:
            self._data_iter = iter(self._data_loader)
        self._logger.info("Computing precise batch-norm statistics of %d batches", self._num_iter)
        with EventStorage():  # what the forward passes report is not training's
            batches = itertools.islice(self._data_iter, self._num_iter)
            update_bn_stats(self._model, batches, self._num_iter)
