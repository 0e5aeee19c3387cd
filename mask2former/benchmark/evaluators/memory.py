"""Resident memory of a process that evaluates."""

import contextlib
import io
import multiprocessing
import os
import tempfile
import time
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
        peak: of the whole evaluation, ``evaluate`` included.
        results: the metrics, by which two courses are compared.
    """

    images: list[int]
    resident: list[float]
    seconds: tuple[float, float]
    peak: float
    results: dict

    @property
    def per_thousand(self) -> float:
        """MiB gained over a thousand images, in the second half: buffers have their size then."""
        middle = len(self.images) // 2 - 1
        gained = self.resident[-1] - self.resident[middle]
        return 1000 * gained / (self.images[-1] - self.images[middle])


def measure(kind: str, provider: str, images: int) -> Course:
    """Runs an evaluation in a process of its own."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(_evaluate, kind, provider, images).result()


def _evaluate(kind: str, provider: str, images: int) -> Course:
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
        start = time.process_time()
        for done, (record, output) in enumerate(pairs, start=1):
            evaluator.process([record], [output])
            if done % every == 0:
                points.append(done)
                resident.append(_resident())
        processed = time.process_time()
        results = evaluator.evaluate()
        evaluated = time.process_time()
    seconds = ((processed - start) / images, evaluated - processed)
    return Course(points, resident, seconds, _peak(), results)


def _resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _peak() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
