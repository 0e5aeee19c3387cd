"""The training loop as a list of hooks around ``run_step``."""

import logging
import weakref
from collections.abc import Iterable
from typing import Any

from detectron2.utils.events import EventStorage

__all__ = ["HookBase", "TrainerBase"]


class HookBase:
    """Something that wants to be called during training.

    A trainer runs, for its hooks in the order of their registration::

        hook.before_train()
        for iteration in range(start_iter, max_iter):
            hook.before_step()
            trainer.run_step()   # hook.after_backward() between backward and optimizer step
            hook.after_step()
        iteration += 1
        hook.after_train()       # also after an exception

    In the hooks, ``self.trainer`` is (a weak reference to) the trainer: its ``iter``,
    ``start_iter``, ``max_iter`` and ``storage`` may be used. Override what you need.
    """

    trainer: "TrainerBase" = None
    """Set when the hook is registered."""

    def before_train(self) -> None:
        """Before the first iteration."""

    def after_train(self) -> None:
        """After the last iteration, or after an exception."""

    def before_step(self) -> None:
        """Before each iteration."""

    def after_backward(self) -> None:
        """When an iteration's gradients are there and the optimizer has not used them yet."""

    def after_step(self) -> None:
        """After each iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What to keep in a checkpoint; a hook that returns something has ``load_state_dict``."""
        return {}


class TrainerBase:
    """A loop over ``run_step`` with hooks around it.

    Attributes:
        iter: the current iteration, from 0.
        start_iter, max_iter: bounds of the loop, the second exclusive.
        storage: the EventStorage of the running training.
    """

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter: int = 0
        self.start_iter: int = 0
        self.max_iter: int = 0
        self.storage: EventStorage | None = None

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Adds hooks, in order; None entries are dropped.

        Raises:
            AssertionError: an entry is not a HookBase.
        """
        hooks = [hook for hook in hooks if hook is not None]
        for hook in hooks:
            if not isinstance(hook, HookBase):
                raise AssertionError(f"{hook!r} is not a HookBase")
            # Weak: a trainer that nobody uses any more is freed at once, with its GPU memory.
            hook.trainer = weakref.proxy(self)
        self._hooks.extend(hooks)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Runs iterations ``start_iter`` to ``max_iter - 1``."""
        logger = logging.getLogger(__name__)
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.before_step()
                    self.run_step()
                    self.after_step()
                # Hooks tell a finished training from a broken one by iter == max_iter.
                self.iter = max(start_iter, max_iter)
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()

    def before_train(self) -> None:
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self) -> None:
        # Whatever is put into the storage during a step belongs to this iteration.
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.before_step()

    def after_backward(self) -> None:
        for hook in self._hooks:
            hook.after_backward()

    def after_step(self) -> None:
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """One iteration."""
        raise NotImplementedError(f"{type(self).__name__} must implement run_step()")

    def state_dict(self) -> dict[str, Any]:
        """The iteration, and the states of the hooks by class name (the first of each class)."""
        state: dict[str, Any] = {"iteration": self.iter}
        hook_states: dict[str, Any] = {}
        for hook in self._hooks:
            name, own = type(hook).__qualname__, hook.state_dict()
            if own and name not in hook_states:
                hook_states[name] = own
        if hook_states:
            state["hooks"] = hook_states
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Undoes :meth:`state_dict`; states of hooks that are not registered are ignored aloud."""
        self.iter = state_dict["iteration"]
        for name, own in state_dict.get("hooks", {}).items():
            for hook in self._hooks:
                if type(hook).__qualname__ == name:
                    hook.load_state_dict(own)
                    break
            else:
                logging.getLogger(__name__).warning(
                    "No hook %s is registered, its state in the checkpoint is ignored", name
                )
