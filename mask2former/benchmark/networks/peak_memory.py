"""Peak memory of a call above that of the loaded model, in a process of its own."""

import ctypes
import gc
import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import torch

from .setting import Setting


def extra_mebibytes(make: Callable[[str, Setting], Callable], kind: str, setting: Setting) -> float:
    """MiB that ``make(kind, setting)()`` needs at its worst, beyond what was there before.

    Args:
        make: a function of a module, e.g. of `inference`.

    Raises:
        OSError: this is no Linux, where alone the peak can be set back.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, make, kind, setting).result()


def _measure(make: Callable[[str, Setting], Callable], kind: str, setting: Setting) -> float:
    torch.set_num_threads(setting.threads)
    call = make(kind, setting)
    gc.collect()
    if setting.device.startswith("cuda"):
        call()  # libraries' workspaces
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not sys.platform.startswith("linux"):
        raise OSError("peak memory can be measured on Linux only")
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    before = _status("VmRSS")
    call()
    call()
    return (_status("VmHWM") - before) / 2**10


def _status(field: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field))
