"""Panoptic evaluation of PNG files, against panopticapi's steps written out plainly.

Synthetic ground truth and predictions of 480x640 are written to a temporary folder and compared by
both, in one process each. PQ, SQ and RQ of every class must be identical, or nothing is timed.

  python tools/benchmark.py eval
  python tools/benchmark.py eval --images 100 --rounds 9
"""

import argparse
import tempfile
from pathlib import Path

from mask2former.benchmark.options import positive, shielded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tools/benchmark.py eval``."""
    parser.add_argument("--images", type=positive, default=20, help="pairs of maps (20)")
    parser.add_argument("--rounds", type=positive, default=5, help="rounds that count (5)")


@shielded
def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 without parity."""
    from mask2former.benchmark.cli import write_json
    from mask2former.benchmark.evaluators.panoptic_files import write_pairs
    from mask2former.benchmark.evaluators.panoptic_reference import pq_plainly
    from mask2former.benchmark.machine import describe, headline
    from mask2former.benchmark.networks.parity import ParityError
    from mask2former.benchmark.networks.reporting import in_words
    from mask2former.benchmark.timing import Spread, alternate
    from mask2former.evaluation.panoptic_quality import pq_compute

    facts = describe()
    print(headline(facts))
    with tempfile.TemporaryDirectory(prefix="mask2former-benchmark-") as folder:
        truth, predictions = write_pairs(Path(folder), args.images)
        variants = {
            "mask2former": lambda: pq_compute(truth, predictions, processes=1),
            "plain": lambda: pq_plainly(truth, predictions),
        }
        ours, plain = (variant() for variant in variants.values())
        difference = max(
            abs(ours["per_class"][c][key] - values[key])
            for c, values in plain.items()
            for key in ("pq", "sq", "rq")
        )
        if difference > 1e-12 or set(plain) != set(ours["per_class"]):
            raise ParityError(f"PQ of a class differs by {difference:.1e}")
        print(f"parity: PQ {100 * ours['All']['pq']:.3f}, largest difference {difference:.0e}")
        measured = alternate(variants, rounds=args.rounds, warmups=1)
    for name, seconds in measured.seconds.items():
        print(f"  {name:<14} {1e3 * Spread.of(seconds).median / args.images:8.2f} ms an image")
    ratio = measured.ratio("plain", "mask2former")
    print(f"  ours is {in_words(ratio)} as fast")
    figures = {"images": args.images, "ratio": ratio.as_dict(), "seconds": measured.seconds}
    write_json(args.json, {"machine": facts, **figures})
    return 0
