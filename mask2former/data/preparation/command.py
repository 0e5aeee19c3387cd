"""The command line that all ``prepare_*.py`` scripts share."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mask2former.data.datasets.folders import dataset_root
from mask2former.data.errors import DataError

from .errors import MissingInput, PreparationError

# What a shell sees after a user error (as with argparse), and after Ctrl-C.
EXIT_STATUS = 2
INTERRUPTED = 130


@dataclass(frozen=True)
class Options:
    """How a preparation runs.

    Attributes:
        root: folder of all data sets.
        workers: processes.
        overwrite: makes files again that are there.
        progress: shows progress bars (on stderr).
    """

    root: Path
    workers: int = 1
    overwrite: bool = False
    progress: bool = False

    def say(self, text: str) -> None:
        """A line for the person at the terminal."""
        print(text, flush=True)


def make_parser(
    description: str | None,
    examples: str = "",
    *,
    splits: Sequence[str] = (),
    root: bool = True,
    workers: bool = True,
) -> argparse.ArgumentParser:
    """A parser with the shared arguments; none of them has to be given.

    Args:
        description: of the script, usually its ``__doc__``.
        examples: shown at the end of ``--help``.
        splits: the parts of the set that ``--splits`` chooses from; empty: no such argument.
        root: whether files are looked for below the folder of all data sets.
        workers: whether the script works on pictures, in several processes, and keeps finished
            ones.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if root:
        parser.add_argument(
            "--root",
            type=Path,
            metavar="DIR",
            help="folder of all data sets (default: $DETECTRON2_DATASETS, else ./datasets)",
        )
    if splits:
        parser.add_argument(
            "--splits",
            nargs="+",
            choices=splits,
            default=list(splits),
            metavar="SPLIT",
            help=f"only these parts of the set ({' '.join(splits)})",
        )
    if workers:
        cores = os.cpu_count() or 1
        parser.add_argument(
            "--workers", type=_count, default=cores, metavar="N", help=f"processes ({cores})"
        )
        parser.add_argument("--overwrite", action="store_true", help="make again what is there")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of processes (1 or more)")
    return int(text)


def run(
    parser: argparse.ArgumentParser,
    prepare: Callable[[argparse.Namespace, Options], None],
    arguments: list[str] | None = None,
) -> int:
    """Parses, prepares, and returns the exit status.

    What the user can mend ends with one line on stderr and status 2, Ctrl-C with 130.

    Args:
        parser: of `make_parser`.
        prepare: gets the parsed arguments and the shared options.
        arguments: the command line (``sys.argv`` by default).
    """
    args = parser.parse_args(arguments)
    root = getattr(args, "root", None)
    options = Options(
        root=Path(dataset_root()) if root is None else root,
        workers=getattr(args, "workers", 1),
        overwrite=getattr(args, "overwrite", False),
        progress=not args.quiet,
    )
    try:
        prepare(args, options)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_STATUS
    except KeyboardInterrupt:
        print("Interrupted; run it again to go on from here.", file=sys.stderr, flush=True)
        return INTERRUPTED
    return 0


def for_splits(splits: Iterable[str], prepare: Callable[[str], None]) -> None:
    """Prepares each split; one that is not there does not keep the others from being prepared.

    Raises:
        PreparationError: names what is missing, after the other splits are done.
    """
    missing: dict[str, list[str]] = {}
    for split in splits:
        try:
            prepare(split)
        except MissingInput as error:
            missing.setdefault(error.remedy, []).append(error.what)
    if missing:
        lines = [str(MissingInput("; ".join(what), remedy)) for remedy, what in missing.items()]
        raise PreparationError(" ".join(lines))
