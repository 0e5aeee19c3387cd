"""Several models at work beside the caller, as in detectron2's demo."""

import multiprocessing as mp
import queue
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from .predictor import Predictor


class AsyncPredictor:
    """One :class:`Predictor` per GPU (one on CPU), each in its own process; results keep the order.

    Either ``put`` images and ``get`` their outputs, or let ``stream`` do both.

    Args:
        cfg: a complete config.
        num_gpus: number of workers; default: one per visible GPU, at least one.
    """

    def __init__(self, cfg: CfgNode, num_gpus: int | None = None):
        gpus = torch.cuda.device_count() if num_gpus is None else num_gpus
        self.metadata = MetadataCatalog.get((cfg.DATASETS.TEST or cfg.DATASETS.TRAIN)[0])
        context = mp.get_context("spawn")
        self._workers = []
        self._handed_in = 0
        self._waiting: deque[int] = deque()  # the worker of each image without an output, in order
        for index in range(max(gpus, 1)):
            mine = cfg.clone()
            mine.defrost()
            mine.MODEL.DEVICE = f"cuda:{index}" if gpus else "cpu"
            inputs, outputs = context.Queue(maxsize=self.images_ahead), context.Queue()
            process = context.Process(target=_serve, args=(mine, inputs, outputs), daemon=True)
            process.start()
            self._workers.append((process, inputs, outputs))

    images_ahead = 2  # that a worker holds besides the one it works on

    @property
    def default_buffer_size(self) -> int:
        """How many images keep every worker busy."""
        return self.images_ahead * len(self._workers)

    def __len__(self) -> int:
        """Images that were put and whose outputs were not fetched."""
        return len(self._waiting)

    def put(self, image: np.ndarray) -> None:
        """Hands in one uint8 BGR image ``[H, W, 3]``; waits while its worker has enough to do."""
        worker = self._handed_in % len(self._workers)
        process, inputs, _ = self._workers[worker]
        while True:
            try:
                inputs.put(image, timeout=1)
                break
            except queue.Full:
                _require_alive(process)
        self._handed_in += 1
        self._waiting.append(worker)

    def get(self) -> dict:
        """The output for the first image whose output was not fetched yet.

        Raises:
            IndexError: nothing was put.
            RuntimeError: the worker has ended, as it does if its model cannot be built.
        """
        process, _, outputs = self._workers[self._waiting.popleft()]
        while True:
            try:
                result = outputs.get(timeout=1)
                break
            except queue.Empty:
                _require_alive(process)
        if isinstance(result, Exception):
            raise result
        return result

    def __call__(self, image: np.ndarray) -> dict:
        """Predicts on one image, uint8 BGR ``[H, W, 3]``.

        As published it is :meth:`put` and :meth:`get`: of images whose outputs were not fetched,
        the first one's output comes.
        """
        self.put(image)
        return self.get()

    def stream(self, images: Iterable[np.ndarray], batch_size: int = 1) -> Iterator[dict]:
        """Hands images to the workers in turn and yields their outputs in order."""
        del batch_size  # every worker takes single images
        for image in images:
            if len(self) >= self.default_buffer_size:
                yield self.get()
            self.put(image)
        while self._waiting:
            yield self.get()

    def shutdown(self) -> None:
        """Ends the workers."""
        for process, inputs, _ in self._workers:
            if process.is_alive():
                inputs.put(None)
            process.join()


def _require_alive(process: mp.Process) -> None:
    if not process.is_alive():
        raise RuntimeError(
            f"a worker of AsyncPredictor ended with status {process.exitcode}; its own message is "
            "above"
        )


def _serve(cfg: CfgNode, inputs: mp.Queue, outputs: mp.Queue) -> None:
    """A worker: builds the model, answers until it gets None."""
    import mask2former  # noqa: F401 - registers models and datasets in this process

    predictor = Predictor(cfg)
    while (image := inputs.get()) is not None:
        try:
            outputs.put(predictor(image))
        except (RuntimeError, ValueError) as error:  # reported where the result is awaited
            outputs.put(error)
