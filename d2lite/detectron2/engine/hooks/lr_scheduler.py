"""Steps the learning-rate schedule."""

from collections import Counter
from typing import Any

from fvcore.common.param_scheduler import ParamScheduler
from torch.optim import Optimizer
from torch.optim import lr_scheduler as torch_schedulers

from detectron2.solver import LRMultiplier

from ..base_trainer import HookBase

__all__ = ["LRScheduler"]


class LRScheduler(HookBase):
    """Puts the learning rate into the storage (``lr``) and steps the schedule every iteration.

    Args:
        optimizer: default: the trainer's.
        scheduler: a torch schedule, or a fvcore ParamScheduler (taken as a multiplier over the
            whole training); default: the trainer's.
    """

    def __init__(
        self,
        optimizer: Optimizer | None = None,
        scheduler: torch_schedulers.LRScheduler | ParamScheduler | None = None,
    ) -> None:
        self._optimizer = optimizer
        self._scheduler = scheduler

    def before_train(self) -> None:
        self._optimizer = self._optimizer or self.trainer.optimizer
        if isinstance(self.scheduler, ParamScheduler):
            self._scheduler = LRMultiplier(
                self._optimizer,
                self.scheduler,
                self.trainer.max_iter,
                last_iter=self.trainer.iter - 1,
            )
        self._best_param_group_id = self.get_best_param_group_id(self._optimizer)

    @staticmethod
    def get_best_param_group_id(optimizer: Optimizer) -> int:
        """The group whose rate stands for all.

        The largest group; where every group holds one parameter, the first one with the most
        common initial rate.
        """
        groups = optimizer.param_groups
        largest = max(len(group["params"]) for group in groups)
        if largest == 1:
            rates = [group.get("initial_lr", group["lr"]) for group in groups]
            return rates.index(Counter(rates).most_common(1)[0][0])
        return next(i for i, group in enumerate(groups) if len(group["params"]) == largest)

    def after_step(self) -> None:
        rate = self._optimizer.param_groups[self._best_param_group_id]["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)
        self.scheduler.step()

    @property
    def scheduler(self) -> torch_schedulers.LRScheduler | ParamScheduler:
        """The schedule in use."""
        return self._scheduler or self.trainer.scheduler

    def state_dict(self) -> dict[str, Any]:
        if isinstance(self.scheduler, torch_schedulers.LRScheduler):
            return self.scheduler.state_dict()
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if isinstance(self.scheduler, torch_schedulers.LRScheduler):
            self.scheduler.load_state_dict(state_dict)
