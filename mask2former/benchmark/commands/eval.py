"""Panoptic evaluation, against what detectron2 and panopticapi do, written out plainly.

Synthetic ground truth and predictions of 480x640 are evaluated in one process each:

* "published evaluator": every predicted map as detectron2's COCOPanopticEvaluator takes it, encoded
  as a PNG, written to a temporary folder, read again and compared by panopticapi's steps; against
  our COCOPanopticEvaluator, which compares maps in two threads as they arrive;
* "files": PNG files of both, compared by panopticapi's steps; against our pq_compute.

PQ, SQ and RQ of every class must be identical, or nothing is timed. Real time and processor time
are printed; the ratios are of real time.

  python tools/benchmark.py eval
  python tools/benchmark.py eval --images 100 --rounds 9
"""

import argparse
import itertools
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mask2former.benchmark.options import positive, shielded

EVALUATOR, FILES = "published evaluator", "files"
_MEASURES = ("pq", "sq", "rq")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tools/benchmark.py eval``."""
    parser.add_argument("--images", type=positive, default=60, help="pairs of maps (60)")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds that count (5)")


@shielded
def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 without parity."""
    import cv2

    from mask2former.benchmark.cli import write_json
    from mask2former.benchmark.evaluators.panoptic_published import predicted_pairs
    from mask2former.benchmark.machine import describe, headline
    from mask2former.benchmark.networks.reporting import in_words

    cv2.setNumThreads(0)  # one thread is one thread
    facts = describe()
    print(headline(facts))
    ratios, seconds, processor = {}, {}, {}
    with tempfile.TemporaryDirectory(prefix="mask2former-benchmark-") as folder:
        truth, predictions, pairs = predicted_pairs(Path(folder), args.images)
        subjects = {EVALUATOR: _evaluators(truth, pairs), FILES: _files(truth, predictions)}
        for name, (ours, plain) in subjects.items():
            print(f"{name}: parity: {_check(ours(), plain())}")
            ratios[name], seconds[name], processor[name] = _time(ours, plain, args.rounds)
            for who, values in seconds[name].items():
                print(
                    f"  {who:<12} {_per_image(values, args.images):8.2f} ms an image "
                    f"({_per_image(processor[name][who], args.images):.2f} ms of processor time)"
                )
            print(f"  ours is {in_words(ratios[name])} as fast")
    figures = {
        "images": args.images,
        "ratios": {name: ratio.as_dict() for name, ratio in ratios.items()},
        "seconds": seconds,
        "processor_seconds": processor,
    }
    write_json(args.json, {"machine": facts, **figures})
    return 0


def _evaluators(truth: str, pairs: list) -> tuple[Callable, Callable]:
    import json

    from mask2former.benchmark.evaluators.panoptic_published import (
        NAME,
        PublishedPanopticEvaluator,
    )
    from mask2former.evaluation import COCOPanopticEvaluator

    logging.getLogger("mask2former.evaluation").setLevel(logging.WARNING)
    streaming, published = COCOPanopticEvaluator(NAME, details=True), PublishedPanopticEvaluator()
    categories = json.loads(Path(truth).read_text())["categories"]

    def evaluate(evaluator):
        evaluator.reset()
        for record, output in pairs:
            evaluator.process([record], [output])
        return evaluator.evaluate()

    def ours() -> dict:
        results = evaluate(streaming)["panoptic_seg"]
        return {
            c["id"]: {m: results[f"{m.upper()}-{c['name']}"] / 100 for m in _MEASURES}
            for c in categories
        }

    return ours, lambda: evaluate(published)


def _files(truth: str, predictions: str) -> tuple[Callable, Callable]:
    from mask2former.benchmark.evaluators.panoptic_reference import pq_plainly
    from mask2former.evaluation.panoptic_quality import pq_compute

    return (
        lambda: pq_compute(truth, predictions, processes=1)["per_class"],
        lambda: pq_plainly(truth, predictions),
    )


def _check(ours: dict, plain: dict) -> str:
    """In words how far apart the qualities of classes are.

    Raises:
        ParityError: one differs.
    """
    from mask2former.benchmark.networks.parity import ParityError

    if set(ours) != set(plain):
        raise ParityError("the classes differ")
    pairs = [(ours[c][key], plain[c][key]) for c, key in itertools.product(plain, _MEASURES)]
    # NaN: the class occurs nowhere, for which panopticapi says 0.
    difference = max(abs((0.0 if a != a else a) - b) for a, b in pairs)
    if difference > 1e-12:
        raise ParityError(f"PQ, SQ or RQ of a class differs by {difference:.1e}")
    mean = sum(values["pq"] for values in plain.values()) / len(plain)
    return f"mean PQ {100 * mean:.3f}, largest difference {difference:.0e}"


def _time(ours: Callable, plain: Callable, rounds: int) -> tuple:
    """Ratio, and real and processor seconds of each round."""
    from mask2former.benchmark.timing import alternate

    processor: dict[str, list[float]] = {"mask2former": [], "plain": []}

    def counted(name: str, function: Callable) -> Callable:
        def call() -> None:
            start = time.process_time()
            function()
            processor[name].append(time.process_time() - start)

        return call

    variants = {n: counted(n, f) for n, f in zip(processor, (ours, plain))}
    measured = alternate(variants, rounds=rounds, warmups=1)
    kept = {name: values[-rounds:] for name, values in processor.items()}
    return measured.ratio("plain", "mask2former"), measured.seconds, kept


def _per_image(seconds: list[float], images: int) -> float:
    from mask2former.benchmark.timing import Spread

    return 1000 * Spread.of(seconds).median / images
