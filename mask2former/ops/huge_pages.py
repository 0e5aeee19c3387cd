"""Large results on the CPU in huge pages: the kernel hands out 2 MiB at a time, not 4 KiB.

A result of 100 full-size masks lies on tens of thousands of small pages, each of which costs more
to hand out than to fill. For memory that is used again and again it makes no difference.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

import torch
from torch import Tensor

HUGE_PAGE = 2 << 20  # bytes, on x86-64 and on most other machines
WORTH_IT = 8 * HUGE_PAGE
_MADV_HUGEPAGE = 14  # from Linux's mman-common.h


def empty(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """``torch.empty`` on the CPU, in huge pages if it is large and the system has them."""
    tensor = torch.empty(size, dtype=dtype)
    length = tensor.numel() * tensor.element_size()
    madvise = _madvise() if length >= WORTH_IT and type(tensor) is Tensor else None
    if madvise is not None:
        first = -(-tensor.data_ptr() // HUGE_PAGE) * HUGE_PAGE
        last = (tensor.data_ptr() + length) // HUGE_PAGE * HUGE_PAGE
        # Advice: where it is refused, the pages stay small.
        madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_HUGEPAGE)
    return tensor


@cache
def _madvise():
    return getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
