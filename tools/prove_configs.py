#!/usr/bin/env python
"""Starts every config on tiny data in its set's true layout: prepare, train a step, evaluate.

    python tools/prove_configs.py                        all configs (minutes)
    python tools/prove_configs.py cityscapes swin_tiny   those whose path contains one of the words
    python tools/prove_configs.py ade20k --eval-only     and --eval-only with the saved weights
    python tools/prove_configs.py --keep /tmp/tiny       leaves the tiny data there

Without words it writes docs/proof-of-configs.md. It downloads nothing: the tiny folders are drawn
as each set is downloaded (tests/layouts) and prepared with the documented commands; then main of
train_net.py runs with the YAML and with overrides that shrink the cost (tests/proving/shrinking.py,
listed in the page). Each outcome is one row: an error, a metric that is not reported or a loss that
is not finite is a failure.

Exit status: 0 where every config is proved, 1 otherwise.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO), str(REPO / "tests")]


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="parts of config paths (all)")
    parser.add_argument("--eval-only", action="store_true", help="also evaluate the saved weights")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes (cores)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for the tiny data")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="markdown (docs/proof-of-configs.md where all configs are run, else none)",
    )
    return parser


def main() -> int:
    """Runs the matrix; the exit status."""
    args = get_parser().parse_args()
    from proving.matrix import find_configs, run_matrix
    from proving.table import markdown, summary

    configs = find_configs(args.words)
    if not configs:
        print(f"error: no config contains {' or '.join(args.words)}", file=sys.stderr)
        return 2
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="prove_configs_") as scratch:
        proof = run_matrix(
            configs,
            args.keep or Path(scratch) / "datasets",
            Path(scratch) / "runs",
            workers=args.workers or os.cpu_count() or 1,
            eval_only=args.eval_only,
        )
    output = args.output or (None if args.words else REPO / "docs" / "proof-of-configs.md")
    if output:
        output.write_text(markdown(proof), encoding="utf-8")
        print(f"written: {output}")
    print(summary(proof))
    return 0 if proof.complete else 1


if __name__ == "__main__":
    sys.exit(main())
