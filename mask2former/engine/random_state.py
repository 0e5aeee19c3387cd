"""The random generators of a process, saved and restored: a resumed run continues exactly."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from detectron2.engine import HookBase
from detectron2.utils import comm


def random_state() -> dict:
    """The states of torch (CPU and current CUDA device), numpy and Python, as plain containers.

    Tensors, numbers and tuples only, so that a checkpoint with it loads with ``weights_only``.
    """
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict) -> None:
    """Undoes :func:`random_state`."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Whatever is drawn inside does not change what is drawn afterwards."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)


class RandomState(HookBase):
    """Puts the random states of all ranks into the checkpoints.

    Register it before the checkpointer, on every rank: the states are collected at the iterations
    at which a checkpoint is due, since only the main process writes it.

    Args:
        period: SOLVER.CHECKPOINT_PERIOD.
    """

    def __init__(self, period: int):
        self._period = period
        self._states: list[dict] = []
        self._collected_at = -1
        self._pending: dict | None = None

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done >= self.trainer.max_iter:
            self._states = comm.gather(random_state(), dst=0)
            self._collected_at = self.trainer.iter

    def before_step(self) -> None:
        # Not at loading time: what is built between loading and the first step draws, too.
        if self._pending is not None:
            set_random_state(self._pending)
            self._pending = None

    def state_dict(self) -> dict:
        if comm.get_world_size() == 1:
            return {"ranks": [random_state()]}
        # Somebody may save at another iteration (BestCheckpointer): older states would be wrong.
        fresh = self._states and self._collected_at == self.trainer.iter
        return {"ranks": self._states} if fresh else {}

    def load_state_dict(self, state_dict: dict) -> None:
        # With another number of processes no state is the right one; the run goes on from its seed.
        if len(state_dict["ranks"]) == comm.get_world_size():
            self._pending = state_dict["ranks"][comm.get_rank()]
