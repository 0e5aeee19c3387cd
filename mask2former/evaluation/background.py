"""Evaluation beside the network: work on one image is done in threads while the next is predicted.

Threads and not processes, because what is counted from large arrays is done by numpy, OpenCV, zlib
and image decoders, which release the GIL, and arrays need not be copied into another process
(measured: docs/evaluation.md). What comes from a GPU is copied before it is handed over here, once.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

# More than two threads wait for each other's Python more than they bring (docs/evaluation.md). The
# limits bound what waits for them: images, and bytes of the arrays they were given (100 masks of
# 1024x2048 are 200 MiB, as bytes).
THREADS = 2
QUEUE = 8
QUEUE_BYTES = 256 * 2**20


class _Job(NamedTuple):
    image: object
    future: Future
    size: int


class Background:
    """Runs functions of images in threads; hands their results on in the order they were given.

    Args:
        keep: is called with every result, in the thread of whoever calls :meth:`submit` and
            :meth:`finish`.
        threads: 1 where one image must be done before the next begins.
    """

    def __init__(self, keep: Callable[[Any], object], threads: int = THREADS) -> None:
        self._keep = keep
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._pending: deque[_Job] = deque()

    def submit(self, image: object, work: Callable, *arguments: Any, size: int = 0) -> None:
        """Queues ``work(*arguments)``; waits first while too much is waiting already.

        Args:
            image: what messages call it.
            size: bytes that ``arguments`` keep alive. A single job may exceed the limit.

        Raises:
            Exception: what the work on an earlier image raised, with a note that names that image;
                everything else that was waiting is dropped then.
        """
        while self._pending and (
            self._pending[0].future.done()
            or len(self._pending) >= QUEUE
            or sum(job.size for job in self._pending) + size > QUEUE_BYTES
        ):
            self._collect_one()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "evaluation")
        self._pending.append(_Job(image, self._pool.submit(work, *arguments), size))

    def finish(self) -> None:
        """Waits until everything is done and kept; raises what :meth:`submit` would."""
        while self._pending:
            self._collect_one()
        self.drop()

    def drop(self) -> None:
        """Forgets what is waiting, and ends the threads."""
        self._pending.clear()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _collect_one(self) -> None:
        job = self._pending.popleft()
        try:
            result = job.future.result()
        except Exception as error:
            self.drop()
            error.add_note(f"This was raised in the evaluation of image {job.image}.")
            raise
        self._keep(result)
