"""Work on many images in several processes, with a progress bar and the results in order."""

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import cv2
from tqdm import tqdm

Job = TypeVar("Job")
Result = TypeVar("Result")

# Jobs that go to a worker at once: the copy through the pipe is paid per group.
_GROUP = 8


def available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_context() -> multiprocessing.context.BaseContext:
    """fork where there is one: workers touch numpy and decoding only, and import nothing again."""
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    return multiprocessing.get_context(method)


def map_images(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    processes: int | None = None,
    progress: str = "",
) -> Iterator[Result]:
    """Results of a function, in the order of the jobs.

    Args:
        function: of a module's top level, or a ``functools.partial`` of one.
        processes: default: all cores; 1 works in this process.
        progress: title of the progress bar; empty: none.
    """
    processes = min(processes or available_cores(), max(1, len(jobs)))
    bar = {"total": len(jobs), "desc": progress, "unit": "image", "disable": not progress}
    if processes == 1:
        yield from tqdm(map(function, jobs), **bar)
        return
    # One core a worker. OpenCV's threads would also not survive the fork.
    with ProcessPoolExecutor(processes, worker_context(), cv2.setNumThreads, (0,)) as pool:
        yield from tqdm(pool.map(function, jobs, chunksize=_GROUP), **bar)
