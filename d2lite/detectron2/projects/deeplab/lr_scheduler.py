"""Polynomial decay with warm-up."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from detectron2._missing import missing_getattr

__all__ = ["WarmupPolyLR"]


class WarmupPolyLR(LRScheduler):
    """lr = base * warmup(it) * (1 - it / max_iters) ** power (DeepLab, Chen et al., TPAMI 2018).

    Args:
        optimizer: whose groups' rates are the bases.
        max_iters: iteration at which the rate reaches 0.
        warmup_factor: factor at the start of the warm-up.
        warmup_iters: length of the warm-up; 0: none.
        warmup_method: "linear" rises to 1, "constant" stays until the end.
        last_epoch: iteration to go on from; -1 starts.
        power: exponent.
        constant_ending: after the warm-up, the polynomial factor does not fall below this.

    Raises:
        ValueError: unknown ``warmup_method``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_iters: int,
        warmup_factor: float = 0.001,
        warmup_iters: int = 1000,
        warmup_method: str = "linear",
        last_epoch: int = -1,
        power: float = 0.9,
        constant_ending: float = 0.0,
    ) -> None:
        if warmup_method not in ("linear", "constant"):
            raise ValueError(
                f"Unknown warmup method: SOLVER.WARMUP_METHOD '{warmup_method}'; "
                "known: linear, constant"
            )
        self.max_iters = max_iters
        self.warmup_factor = warmup_factor
        self.warmup_iters = warmup_iters
        self.warmup_method = warmup_method
        self.power = power
        self.constant_ending = constant_ending
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        # A training may be continued beyond max_iters; the rate then stays at its end.
        remaining = max(1.0 - self.last_epoch / self.max_iters, 0.0)
        decay = math.pow(remaining, self.power)
        warmup = self._warmup()
        if warmup == 1.0 and self.constant_ending > 0:
            decay = max(decay, self.constant_ending)
        return [base_lr * warmup * decay for base_lr in self.base_lrs]

    def _warmup(self) -> float:
        if self.last_epoch >= self.warmup_iters:
            return 1.0
        if self.warmup_method == "constant":
            return self.warmup_factor
        done = self.last_epoch / self.warmup_iters
        return self.warmup_factor * (1 - done) + done

    def _compute_values(self) -> list[float]:
        return self.get_lr()


__getattr__ = missing_getattr(__name__)
