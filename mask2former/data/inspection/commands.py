"""The commands of ``tools/datasets.py``: each prints and returns an exit status."""

import argparse
import difflib
import os
import random
from pathlib import Path

from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from detectron2.data import DatasetCatalog

from ..dataset_mappers.reading import ImageDecodeError
from ..datasets.folders import VARIABLE, dataset_root
from .drawing import caption_of, contact_sheet, draw_record
from .expected import Expected, count_files, expected_files, how_to_get, json_fault, near_miss
from .report import survey_lines
from .sets import describe, registered_sets
from .survey import survey

# What loaders raise on files that do not fit their set.
_LOADING_ERRORS = (FileNotFoundError, AssertionError, ValueError, KeyError, TypeError)


class DatasetToolError(Exception):
    """The message is for the user: one line with the remedy."""


def list_sets(args: argparse.Namespace) -> int:
    """Table of the sets whose name contains ``args.pattern``."""
    names = [n for n in registered_sets() if args.pattern in n]
    if not names:
        raise DatasetToolError(f'no registered name contains "{args.pattern}"')
    root = os.path.abspath(dataset_root())
    rows = []
    for info in map(describe, names):
        place = os.path.relpath(info.root, root) if info.root.startswith(root) else info.root
        rows.append(
            (info.name, info.task, info.evaluator_type, info.classes or "?", place, info.state)
        )
    print(_root_line())
    print(tabulate(rows, headers=("name", "task", "evaluator", "classes", "folder", "files")))
    return 0


def check_sets(args: argparse.Namespace) -> int:
    """Expected files, then what is in them; 1 where something is missing or broken."""
    for name in args.names:
        _require_known(name)
    if args.sample is not None and args.sample < 1:
        raise DatasetToolError(f"--sample {args.sample}: at least 1 image")
    print(_root_line())
    return max([_check(name, args) for name in args.names])


def _check(name: str, args: argparse.Namespace) -> int:
    info = describe(name)
    print(f"\n{name}: {info.task}, evaluator type {info.evaluator_type or 'none'}")
    files = expected_files(name)
    for entry in files:
        print(_file_line(entry))
    missing = [e for e in files if e.required and not e.exists]
    if missing:
        print(f"\nMISSING  {near_miss(missing[0].path)}")
        print(how_to_get(name))
        return 1
    try:
        found = survey(name, sample=args.sample, workers=args.workers)
    except _LOADING_ERRORS as error:
        plain = isinstance(error, FileNotFoundError | ValueError)
        reason = json_fault(name) or (error if plain else f"{type(error).__name__}: {error}")
        print(f"\nCANNOT BE READ  {reason}\n{how_to_get(name)}")
        return 1
    print("\n".join(survey_lines(found, args.limit)))
    if not found.sound:
        print(f"\n{how_to_get(name)}")
    return 0 if found.sound else 1


def show_set(args: argparse.Namespace) -> int:
    """Draws records into ``args.output``, and all of them on ``contact_sheet.jpg``."""
    _require_known(args.name)
    if args.n < 1:
        raise DatasetToolError(f"--n {args.n}: at least 1 image")
    missing = [e for e in expected_files(args.name) if e.required and not e.exists]
    if missing:
        raise DatasetToolError(
            f"{args.name}: {missing[0].path} is missing; "
            f"python tools/datasets.py check {args.name} says how to get it"
        )
    records = [r for r in DatasetCatalog.get(args.name) if "file_name" in r]
    if not records:
        raise DatasetToolError(
            f"{args.name} names categories, not images (crop sampling); show the set without "
            "_cropsampling"
        )
    chosen = records[: args.n]
    if args.seed >= 0:
        chosen = random.Random(args.seed).sample(records, min(args.n, len(records)))
    args.output.mkdir(parents=True, exist_ok=True)
    pictures, broken = [], 0
    for record in tqdm(chosen, desc=args.name, unit="image"):
        try:
            picture = draw_record(record, args.name)
        except (ImageDecodeError, ValueError) as error:
            tqdm.write(f"left out: {error}")
            broken += 1
            continue
        caption = caption_of(record)
        Image.fromarray(picture).save(args.output / f"{Path(caption).stem}.jpg", quality=90)
        pictures.append((caption, picture))
    if not pictures:
        raise DatasetToolError(f"{args.name}: none of {len(chosen)} images could be drawn")
    sheet = args.output / "contact_sheet.jpg"
    Image.fromarray(contact_sheet(pictures)).save(sheet, quality=90)
    print(f"{len(pictures)} pictures and {sheet}")
    return 1 if broken else 0


def _require_known(name: str) -> None:
    names = registered_sets()
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    near = near or [n for n in names if name in n][:3]
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise DatasetToolError(
        f"{name} is not registered{hint} (all: python tools/datasets.py list; sets of a config "
        "need --config-file)"
    )


def _root_line() -> str:
    root = os.path.abspath(dataset_root())
    origin = VARIABLE if os.getenv(VARIABLE) else f"{VARIABLE} is not set: ./datasets"
    return f"data root {root} ({origin})" + ("" if os.path.isdir(root) else ", which is missing")


def _file_line(entry: Expected) -> str:
    path = os.path.abspath(entry.path)
    if not entry.exists:
        state = "MISSING" if entry.required else f"missing (only for {entry.purpose})"
        return f"  {entry.key:19} {path}  {state}"
    counts = count_files(path) if os.path.isdir(path) else {}
    told = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in sorted(counts.items()))
    size = f"{os.path.getsize(path) / 1e6:.1f} MB" if os.path.isfile(path) else told or "empty"
    return f"  {entry.key:19} {path}  {size}"


COMMANDS = {"list": list_sets, "check": check_sets, "show": show_set}
