"""Evaluates during and after training."""

from collections.abc import Callable, Mapping

from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from ..base_trainer import HookBase

__all__ = ["EvalHook"]


class EvalHook(HookBase):
    """Calls a function every ``eval_period`` iterations and after a training that has finished.

    Args:
        eval_period: 0: only after training.
        eval_function: returns nested metrics (or None), which go into the storage as
            ``task/metric``. All processes call it.
        eval_after_train: evaluate after the last iteration.
    """

    def __init__(
        self, eval_period: int, eval_function: Callable[[], Mapping], eval_after_train: bool = True
    ) -> None:
        self._period = eval_period
        self._func = eval_function
        self._eval_after_train = eval_after_train

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        # After the last iteration, after_train() does it.
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._do_eval()

    def after_train(self) -> None:
        # An interrupted training has iter < max_iter.
        if self._eval_after_train and self.trainer.iter >= self.trainer.max_iter:
            self._do_eval()
        # The function usually holds the trainer: break the cycle.
        del self._func

    def _do_eval(self) -> None:
        results = self._func()
        if results:
            if not isinstance(results, Mapping):
                raise AssertionError(f"The eval function must return a dict, got {results!r}")
            flat = flatten_results_dict(results)
            for name, value in flat.items():
                try:
                    flat[name] = float(value)
                except (TypeError, ValueError) as error:
                    raise ValueError(
                        "[EvalHook] the eval function must return nested metrics that are "
                        f"numbers; '{name}' is {value!r}"
                    ) from error
            self.trainer.storage.put_scalars(**flat, smoothing_hint=False)
        # Evaluation takes different times on different ranks; start training together.
        comm.synchronize()
