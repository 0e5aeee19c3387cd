"""The command line of ``tools/benchmark.py``: one subcommand a module of `commands`."""

import argparse
import importlib
import json
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import commands

_DESCRIPTION = """Measures parts of this project against a readable reference, on this machine.

Variants alternate in one process, so that a busy machine slows both; what is reported are
medians over rounds, and ratios within rounds with their range. A speed is printed only
after the variants were found to give the same result."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns its exit status."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if not hasattr(args, "run"):
        parser.print_help()
        return 0
    if args.json and not Path(args.json).absolute().parent.is_dir():
        parser.error(f"--json {args.json}: {Path(args.json).absolute().parent} does not exist")
    return args.run(args)


def get_parser() -> argparse.ArgumentParser:
    """The parser with all subcommands."""
    parser = argparse.ArgumentParser(
        prog="tools/benchmark.py",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(title="what to measure", metavar="WHAT")
    for name in sorted(m.name for m in pkgutil.iter_modules(commands.__path__)):
        module = importlib.import_module(f"{commands.__name__}.{name}")
        summary = (module.__doc__ or "").strip()
        subparser = subparsers.add_parser(
            name,
            help=summary.splitlines()[0] if summary else None,
            description=summary,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.add_argument("--json", metavar="FILE", help="write all figures to this file too")
        subparser.set_defaults(run=module.run)
    return parser


def write_json(path: str | None, content: dict[str, Any]) -> None:
    """Writes figures where ``--json`` says, if it does."""
    if path:
        Path(path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(f"Wrote {path}")
