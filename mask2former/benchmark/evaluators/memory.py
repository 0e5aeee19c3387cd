"""Resident memory of a process that evaluates, and what its loop waits for."""

import contextlib
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

# Providers: this project's evaluators, and those of the detectron2 that is installed.
OURS, DETECTRON2 = "mask2former", "detectron2"


@dataclass(frozen=True)
class Course:
    """Memory over an evaluation, in MiB.

    Args:
        images: after how many images ``resident`` was taken.
        resident: of the process, then.
        seconds: of processor time, for an image in ``process`` and for ``evaluate``. A busy
            machine hardly changes it.
        waited: mean milliseconds of real time that ``process`` kept the loop of an image.
        network: median milliseconds that the network stand-in took between two images, alone and
            with the evaluator beside it; empty without one.
        peak: of the whole evaluation, ``evaluate`` included.
        results: the metrics, by which two courses are compared.
    """

    images: list[int]
    resident: list[float]
    seconds: tuple[float, float]
    waited: float
    network: tuple[float, ...]
    peak: float
    results: dict

    @property
    def per_thousand(self) -> float:
        """MiB gained over a thousand images, in the second half: buffers have their size then."""
        middle = len(self.images) // 2 - 1
        gained = self.resident[-1] - self.resident[middle]
        return 1000 * gained / (self.images[-1] - self.images[middle])


def measure(kind: str, provider: str, images: int, beside: int = 0) -> Course:
    """Runs an evaluation in a process of its own.

    Args:
        beside: milliseconds that a network stand-in computes before each image; 0: none.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(_evaluate, kind, provider, images, beside).result()


def _evaluate(kind: str, provider: str, images: int, beside: int) -> Course:
    import importlib
    import logging

    from mask2former.benchmark.evaluators.scenes import SCENES

    logging.disable(logging.WARNING)
    names = {
        "instances": "COCOEvaluator",
        "semantic": "SemSegEvaluator",
        "panoptic": "COCOPanopticEvaluator",
    }
    evaluators = importlib.import_module(f"{provider}.evaluation")
    with (
        tempfile.TemporaryDirectory(prefix="benchmark_") as temporary,
        contextlib.redirect_stdout(io.StringIO()),  # pycocotools prints
    ):
        folder = Path(temporary)
        pairs = SCENES[kind](folder, images, "benchmark")
        evaluator = getattr(evaluators, names[kind])("benchmark", output_dir=str(folder / "out"))
        evaluator.reset()
        points, resident = [], []
        every = max(1, images // 10)
        network = _network(beside) if beside else lambda: None
        alone = [_milliseconds(network) for _ in range(10)]
        waited, with_evaluator = [], []
        start = time.process_time()
        for done, (record, output) in enumerate(pairs, start=1):
            with_evaluator.append(_milliseconds(network))
            waited.append(_milliseconds(evaluator.process, [record], [output]))
            if done % every == 0:
                points.append(done)
                resident.append(_resident())
        processed = time.process_time()
        results = evaluator.evaluate()
        evaluated = time.process_time()
    seconds = ((processed - start) / images, evaluated - processed)
    durations = tuple(map(statistics.median, (alone, with_evaluator))) if beside else ()
    return Course(points, resident, seconds, statistics.fmean(waited), durations, _peak(), results)


def _milliseconds(function: Callable, *arguments) -> float:
    start = time.perf_counter()
    function(*arguments)
    return 1000 * (time.perf_counter() - start)


def _network(milliseconds: int) -> Callable[[], object]:
    """Convolutions that take about so long on this machine when nothing else runs."""
    import torch

    layer, x = torch.nn.Conv2d(16, 16, 3, padding=1), torch.rand(1, 16, 64, 64)

    def run(layers: int) -> None:
        with torch.no_grad():
            for _ in range(layers):
                layer(x)

    run(100)
    layers = max(1, round(milliseconds * 100 / _milliseconds(run, 100)))
    return lambda: run(layers)


def _resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _peak() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
