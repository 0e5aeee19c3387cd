"""Fair timing on a shared machine: variants alternate, ratios are taken within a round."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Spread:
    """A median and the range it comes from."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"median": self.median, "min": self.low, "max": self.high}


class Rounds:
    """Seconds of each variant in each round."""

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        self.seconds = seconds

    def rate(self, variant: str, items: int) -> Spread:
        """Items a second, where a round processes ``items`` of them."""
        return Spread.of([items / s for s in self.seconds[variant]])

    def ratio(self, slow: str, fast: str) -> Spread:
        """How many times as fast ``fast`` is as ``slow``, round by round."""
        return Spread.of([s / f for s, f in zip(self.seconds[slow], self.seconds[fast])])


def alternate(
    variants: dict[str, Callable[[], Any]],
    *,
    rounds: int,
    warmups: int = 1,
    after_round: Callable[[], Any] = lambda: None,
) -> Rounds:
    """Times variants in turn: A B C, then C B A, and so on.

    Args:
        variants: name -> what to time; results are dropped.
        rounds: that count, at least 1.
        warmups: rounds before those.
        after_round: called after every round, for a progress bar.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    for number in range(warmups + rounds):
        for name in order:
            start = time.perf_counter()
            variants[name]()
            taken = time.perf_counter() - start
            if number >= warmups:
                seconds[name].append(taken)
        order.reverse()
        after_round()
    return Rounds(seconds)
