#!/usr/bin/env python
"""What is registered, is it there, is it sound, what does it look like.

    python tools/datasets.py list                           all names: task, classes, found or not
    python tools/datasets.py list ade20k                    those with "ade20k" in the name
    python tools/datasets.py check coco_2017_val            files, counts, broken files, classes
    python tools/datasets.py check ade20k_sem_seg_train --sample 500
    python tools/datasets.py show cityscapes_fine_panoptic_val --n 8 --output look/

Data sets are looked for under $DETECTRON2_DATASETS (./datasets where that is not set); --root
names another folder. Sets that a config declares (DATASETS.CUSTOM) are known with --config-file.
The exit status is 0 where all is well, 1 where a check found something, 2 for a wrong command.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--root", metavar="DIR", help="instead of $DETECTRON2_DATASETS")
    common.add_argument("--config-file", metavar="YAML", help="also its DATASETS.CUSTOM sets")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    names = commands.add_parser("list", parents=[common], help="all registered names")
    names.add_argument("pattern", nargs="?", default="", help="part of the names (all)")

    check = commands.add_parser(
        "check", parents=[common], help="what is missing or broken, and what is in it"
    )
    check.add_argument("names", nargs="+", metavar="NAME")
    check.add_argument(
        "--sample", type=int, metavar="N", help="decode N images drawn at random (all)"
    )
    check.add_argument("--workers", type=int, metavar="N", help="threads (one a core)")
    check.add_argument("--limit", type=int, default=10, metavar="N", help="problems listed (10)")

    show = commands.add_parser("show", parents=[common], help="images with their annotations")
    show.add_argument("name", metavar="NAME")
    show.add_argument("--n", type=int, default=8, metavar="N", help="images (8)")
    show.add_argument("--output", type=Path, required=True, metavar="DIR", help="made if missing")
    show.add_argument("--seed", type=int, default=0, help="of the draw; -1: the first N (0)")
    return parser


def main() -> int:
    """Runs one command; the exit status."""
    args = get_parser().parse_args()
    if args.root is not None:
        if not os.path.isdir(args.root):
            return _complain(f"--root {args.root}: no such folder")
        # Read when mask2former is imported, which is why that happens after the command line.
        os.environ["DETECTRON2_DATASETS"] = os.path.abspath(args.root)
    from mask2former.data.inspection import commands
    from mask2former.engine.errors import USER_ERRORS, message_of
    from mask2former.engine.setup import load_config

    try:
        if args.config_file:
            load_config(args.config_file, [], need_data=False)
        status = commands.COMMANDS[args.command](args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # "list | head": whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (*USER_ERRORS, commands.DatasetToolError) as error:
        return _complain(message_of(error))


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
