"""Learning-rate schedules: fvcore's parameter schedules with warm-up, applied to an optimizer.

A *multiplier* maps training progress in [0, 1] to a factor on each group's initial learning rate.
"""

import math
from bisect import bisect_right

from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detectron2._missing import missing_getattr

__all__ = [
    "CompositeParamScheduler",
    "ConstantParamScheduler",
    "LRMultiplier",
    "LinearParamScheduler",
    "ParamScheduler",
    "WarmupCosineLR",
    "WarmupMultiStepLR",
    "WarmupParamScheduler",
]


class WarmupParamScheduler(CompositeParamScheduler):
    """Another schedule with a warm-up in front.

    Args:
        scheduler: what follows the warm-up.
        warmup_factor: the warm-up starts at this multiple of ``scheduler(0)``.
        warmup_length: share of the whole training, in [0, 1].
        warmup_method: "linear" (up to the value at which the schedule is entered) or "constant".
        rescale_interval: True squeezes all of ``scheduler`` into the rest of the training; False
            enters it at ``warmup_length``, as if the warm-up had covered its beginning.

    Raises:
        ValueError: unknown ``warmup_method``.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        start = warmup_factor * scheduler(0.0)
        entry = scheduler(0.0 if rescale_interval else warmup_length)
        if warmup_method == "linear":
            warmup = LinearParamScheduler(start, entry)
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(start)
        else:
            raise ValueError(
                f"SOLVER.WARMUP_METHOD must be 'linear' or 'constant', got '{warmup_method}'"
            )
        super().__init__(
            [warmup, scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
        )


class LRMultiplier(LRScheduler):
    """Sets every group's rate to its initial rate times ``multiplier(iteration / max_iter)``.

    Its state is only ``base_lrs`` and ``last_epoch``: on resuming, the shape of the schedule comes
    from the code and the config, not from the checkpoint.

    Args:
        multiplier: factor over the progress in [0, 1].
        max_iter: iterations of the whole training.
        last_iter: -1 for a fresh start.

    Raises:
        ValueError: ``multiplier`` is not a fvcore ParamScheduler.
    """

    def __init__(
        self, optimizer: Optimizer, multiplier: ParamScheduler, max_iter: int, last_iter: int = -1
    ) -> None:
        if not isinstance(multiplier, ParamScheduler):
            raise ValueError(
                "LRMultiplier needs a fvcore ParamScheduler as its multiplier, "
                f"got {type(multiplier).__name__}"
            )
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict:
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base_lr * factor for base_lr in self.base_lrs]


class _WarmupLR(LRScheduler):
    """Common part of the two schedules below, kept for scripts that construct them directly."""

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_factor: float,
        warmup_iters: int,
        warmup_method: str,
        last_epoch: int,
    ) -> None:
        self.warmup_factor = warmup_factor
        self.warmup_iters = warmup_iters
        self.warmup_method = warmup_method
        super().__init__(optimizer, last_epoch)

    def _decay(self, iteration: int) -> float:
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        factor = self._decay(self.last_epoch) * _get_warmup_factor_at_iter(
            self.warmup_method, self.last_epoch, self.warmup_iters, self.warmup_factor
        )
        return [base_lr * factor for base_lr in self.base_lrs]

    def _compute_values(self) -> list[float]:
        return self.get_lr()


class WarmupMultiStepLR(_WarmupLR):
    """Multiplies the rate by ``gamma`` at each milestone (iterations, increasing), after a warm-up.

    Raises:
        ValueError: milestones are not increasing.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        milestones: list[int],
        gamma: float = 0.1,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        if list(milestones) != sorted(milestones):
            raise ValueError(f"Milestones must increase, got {milestones}")
        self.milestones = milestones
        self.gamma = gamma
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def _decay(self, iteration: int) -> float:
        return self.gamma ** bisect_right(self.milestones, iteration)


class WarmupCosineLR(_WarmupLR):
    """Half a cosine from 1 to 0 over ``max_iters``, times a warm-up."""

    def __init__(
        self,
        optimizer: Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        self.max_iters = max_iters
        super().__init__(optimizer, warmup_factor, warmup_iters, warmup_method, last_epoch)

    def _decay(self, iteration: int) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * iteration / self.max_iters))


def _get_warmup_factor_at_iter(
    method: str, iteration: int, warmup_iters: int, warmup_factor: float
) -> float:
    """The factor of the warm-up at an iteration: 1 from ``warmup_iters`` on.

    Raises:
        ValueError: unknown ``method``.
    """
    if iteration >= warmup_iters:
        return 1.0
    if method == "constant":
        return warmup_factor
    if method == "linear":
        done = iteration / warmup_iters
        return warmup_factor * (1 - done) + done
    raise ValueError(f"Unknown warm-up method '{method}'; use 'linear' or 'constant'")


__getattr__ = missing_getattr(__name__)
