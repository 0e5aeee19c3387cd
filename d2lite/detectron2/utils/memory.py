"""Going on after the GPU ran out of memory."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from detectron2._missing import missing_getattr

__all__ = ["retry_if_cuda_oom"]


def _is_cuda_oom(error: RuntimeError) -> bool:
    # torch.OutOfMemoryError is a RuntimeError; older and third-party kernels raise plain ones.
    return "CUDA out of memory. " in str(error)


def retry_if_cuda_oom(func: Callable) -> Callable:
    """Make ``func`` survive CUDA out-of-memory: empty the cache and retry, then retry on the CPU.

    For the CPU attempt only tensors given directly as arguments are moved (not those inside
    lists or dicts), so ``func`` has to work, and return CPU tensors, with such arguments. It may
    run up to three times and so must not have side effects.
    """

    def to_cpu(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.device.type == "cuda":
            return value.to("cpu")
        return value

    @wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if not _is_cuda_oom(error):
                raise
        torch.cuda.empty_cache()
        try:
            return func(*args, **kwargs)
        except RuntimeError as error:
            if not _is_cuda_oom(error):
                raise
        logging.getLogger(__name__).info(
            "CUDA is out of memory: running %s on the CPU", getattr(func, "__name__", repr(func))
        )
        return func(
            *[to_cpu(value) for value in args],
            **{name: to_cpu(value) for name, value in kwargs.items()},
        )

    return wrapped


__getattr__ = missing_getattr(__name__)
