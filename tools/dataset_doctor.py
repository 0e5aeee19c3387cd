#!/usr/bin/env python
"""Looks at your data, says what is wrong with it, and writes a config that trains on it.

    python tools/dataset_doctor.py PATH --output doctor/
    python train_net.py --config-file doctor/config.yaml

PATH is a folder or a file: COCO json (instances or panoptic), CVAT for images 1.1
(annotations.xml), YOLO segmentation (data.yaml), or folders of images and label images.
"""

import argparse
import json
import logging
import re
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs from a plain checkout too

import cv2
import numpy as np
from tabulate import tabulate

from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from detectron2.utils.visualizer import Visualizer
from mask2former.data.dataset_mappers.reading import DECODE_FAILURES
from mask2former.data.doctor import (
    Severity,
    Survey,
    TrainingPlan,
    UnknownFormat,
    detect,
    plan_training,
    survey,
)

_SAMPLE_SIDE = 480


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Check a data set and write a config for it.",
        epilog="examples:\n"
        "  python tools/dataset_doctor.py exported_from_cvat/ --output doctor/\n"
        "  python tools/dataset_doctor.py data/instances_train.json --strict\n"
        "  python tools/dataset_doctor.py data/ --classes wall floor window   # label images\n\n"
        "Written to --output: config.yaml, samples.jpg, report.json.\n"
        "Exit status: 0; 2 when nothing was recognised; 1 with --strict and an ERROR finding.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("path", metavar="PATH", help="folder or annotation file")
    add("--output", default="", metavar="DIR", help="write config, samples and report there")
    add("--name", default="", help="prefix of the sets' names (default: the folder's name)")
    add("--classes", nargs="+", default=[], metavar="C", help="classes of label images, by id")
    add("--batch-size", type=int, default=4, metavar="N", help="images a step (default: 4)")
    add("--epochs", type=int, default=50, metavar="N", help="passes (default: 50)")
    add(
        "--weights",
        default="auto",
        metavar="W",
        help="MODEL.WEIGHTS of the config: a file or address, 'none' (train from scratch), or "
        "'auto' (default): the published backbone weights if they can be fetched, else none",
    )
    add("--base", default=None, metavar="FILE", help="config to stand on (default: R50)")
    add("--samples", type=int, default=9, metavar="N", help="images drawn (default: 9)")
    add("--strict", action="store_true", help="exit status 1 when there is an ERROR finding")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Examines, reports and writes; returns the exit status."""
    args = get_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for flag, file in (("--base", args.base), ("--weights", args.weights)):
        named = file and file not in ("none", "auto") and "://" not in file
        if named and not Path(file).is_file():
            print(f"dataset_doctor.py: {flag} {file}: no such file", file=sys.stderr)
            return 2
    try:
        if len(args.classes) == 1:  # also "a,b,c", as in configs
            args.classes = [name for name in args.classes[0].split(",") if name]
        candidate = detect(args.path, classes=args.classes)
    except (UnknownFormat, OSError) as error:
        print(f"dataset_doctor.py: {error}", file=sys.stderr)
        return 2
    print(f"format: {candidate.format} ({candidate.task} segmentation)")
    for note in candidate.notes:
        print(f"note: {note}")
    found = survey(candidate, progress=sys.stderr.isatty())
    if found.splits.get("train") and found.most_objects > 100:
        found.findings.add(
            "many-objects",
            Severity.WARNING,
            f"up to {found.most_objects} objects in an image, more than the published 100 queries",
            "the written config has more queries; weights of 100 queries lose their query parts",
        )
    print_report(found)
    if args.output and found.splits.get("train") and found.splits["train"].sizes:
        write_outputs(args, candidate, found)
    return 1 if args.strict and found.findings.worst is Severity.ERROR else 0


def print_report(found: Survey) -> None:
    """Counts, classes and findings as text."""
    rows = []
    for role, split in found.splits.items():
        sizes = np.array(split.sizes) if split.sizes else np.zeros((1, 2), int)
        low, high = sizes.min(0), sizes.max(0)
        rows.append(
            [
                role,
                len(split.records),
                sum(split.objects),
                f"{np.mean(split.objects) if split.objects else 0:.1f}",
                max(split.objects, default=0),
                f"{low[0]}x{low[1]} to {high[0]}x{high[1]}",
            ]
        )
    headers = ["split", "images", "objects", "per image", "most", "sizes"]
    print("\n" + tabulate(rows, headers=headers, tablefmt="github"))
    if "train" in found.splits:
        names = found.classes
        counts = [
            [name, *(split.per_class[i] for split in found.splits.values())]
            for i, name in enumerate(names)
        ]
        print("\n" + tabulate(counts[:60], headers=["class", *found.splits], tablefmt="github"))
        if len(counts) > 60:
            print(f"... and {len(counts) - 60} more classes")
    print()
    if not len(found.findings):
        print("Nothing to complain about.")
    for finding in found.findings:
        print(f"{finding.severity.name:7} {finding.message} ({finding.count}) [{finding.code}]")
        for example in finding.examples[:3]:
            print(f"          e.g. {example}")
        print(f"        -> {finding.remedy}")


def write_outputs(args: argparse.Namespace, candidate, found: Survey) -> None:
    """config.yaml, samples.jpg and report.json."""
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    weights, note = chosen_weights(args.weights)
    plan = plan_training(
        candidate,
        found,
        output=(output / "config.yaml").resolve(),
        name=args.name or set_name(args.path),
        batch_size=args.batch_size,
        epochs=args.epochs,
        weights=weights,
        base=args.base,
    )
    if note:
        plan.reasons["MODEL.WEIGHTS"] = note
    (output / "config.yaml").write_text(plan.text())
    report = {
        "format": candidate.format,
        "task": candidate.task,
        "classes": found.classes,
        "findings": [finding.to_json() for finding in found.findings],
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    draw_samples(found, output / "samples.jpg", args.samples)
    _print_plan(plan, output)


def _print_plan(plan: TrainingPlan, output: Path) -> None:
    print(f"\nwritten: {output / 'config.yaml'}, {output / 'samples.jpg'} (look at it)")
    for key, why in plan.reasons.items():
        print(f"  {key}: {why}")
    print(f"\nnow: python train_net.py --config-file {output / 'config.yaml'}")


def set_name(path: str) -> str:
    """A name for the sets, from the folder."""
    place = Path(path).resolve()
    place = place.parent if place.is_file() else place
    if place.name in ("annotations", "labels"):
        place = place.parent
    return re.sub(r"\W+", "_", place.name).strip("_").lower() or "my_set"


def chosen_weights(wish: str) -> tuple[str | None, str]:
    """MODEL.WEIGHTS (None: as in the base config) and a word about it."""
    if wish == "none":
        return "", "none, as asked for: training from scratch needs many images"
    if wish != "auto":
        return wish, ""
    try:
        socket.create_connection(("dl.fbaipublicfiles.com", 443), timeout=3).close()
    except OSError:
        return "", (
            "none: the published backbone weights cannot be fetched from here. Download a COCO "
            "checkpoint (MODEL_ZOO.md) and name it with --weights: results will be far better"
        )
    return None, "of the published backbone; a COCO checkpoint (MODEL_ZOO.md) is better still"


def draw_samples(found: Survey, path: Path, count: int) -> None:
    """A sheet of training images with their annotations; crowded ones are preferred."""
    split, metadata = found.splits["train"], MetadataCatalog.get("doctor_train")
    step = max(1, len(split.records) // max(count, 1))
    tiles = []
    for record in split.records[::step][:count]:
        try:
            image = read_image(record["file_name"], "RGB")
        except DECODE_FAILURES:
            continue  # is among the findings
        scale = _SAMPLE_SIDE / max(image.shape[:2])
        visualizer = Visualizer(image, metadata, scale=max(scale, 0.1))
        drawn = [a for a in record.get("annotations", []) if a.get("segmentation")]
        tile = visualizer.draw_dataset_dict({**record, "annotations": drawn}).get_image()
        tile = cv2.resize(tile, None, fx=1, fy=1)
        square = np.full((_SAMPLE_SIDE + 4, _SAMPLE_SIDE + 4, 3), 255, np.uint8)
        tile = tile[: _SAMPLE_SIDE + 4, : _SAMPLE_SIDE + 4]
        square[: tile.shape[0], : tile.shape[1]] = tile
        tiles.append(square)
    if not tiles:
        return
    columns = min(3, len(tiles))
    while len(tiles) % columns:
        tiles.append(np.full_like(tiles[0], 255))
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])


if __name__ == "__main__":
    sys.exit(main())
