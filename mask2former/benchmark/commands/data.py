"""Images a second of the training mappers, against a plain reference.

Each mapper of INPUT.DATASET_MAPPER_NAME maps synthetic pictures that cost what real ones cost (COCO
640x480 JPEG with 15 polygons, ADE20K 683x512 JPEG, Cityscapes 2048x1024 PNG), with the
augmentations of the published configs. The reference takes the published steps one by one on
detectron2's functions; both draw the same random numbers and must give the same bytes, or no speed
is printed. "reading" is what decoding the files alone allows: no mapper can be faster.

  all mappers, a few minutes:
    python tools/benchmark.py data

  one mapper, more rounds, figures as JSON:
    python tools/benchmark.py data --mapper coco_panoptic_lsj --rounds 15 --json data.json

  what a loader of 4 worker processes delivers:
    python tools/benchmark.py data --mapper coco_instance_lsj --workers 4

  your own config and data:
    python tools/benchmark.py data --config-file \\
        configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

# Also the choices of the command line, without importing torch for --help.
PICTURES = ("coco", "ade20k", "cityscapes")
MAPPERS = (
    "coco_instance_lsj",
    "coco_panoptic_lsj",
    "mask_former_instance",
    "mask_former_panoptic",
    "mask_former_panoptic_cropsampling",
    "mask_former_semantic",
    "safetybarrier_instance_lsj",
)
_HEAD = ("mapper", "pictures", "images/s", "reference", "reading", "times as fast (min-max)")
_ROW = "{:<34} {:<11} {:>9} {:>10} {:>8}   {}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tools/benchmark.py data``."""
    add = parser.add_argument
    add("--mapper", nargs="+", choices=MAPPERS, metavar="NAME", help=", ".join(MAPPERS))
    add("--pictures", nargs="+", choices=PICTURES, help="kinds of synthetic pictures")
    add("--config-file", metavar="FILE", help="measure the mapper and data set of a config instead")
    add("--images", type=_positive, default=8, help="different pictures in a round (8)")
    add("--rounds", type=_positive, default=7, help="rounds that count (7)")
    add("--warmups", type=int, default=2, help="rounds before those (2)")
    add("--threads", type=_positive, default=1, help="threads of torch and OpenCV (1, as a worker)")
    add("--workers", type=int, default=0, help="measure the loader with as many workers too (0)")
    add("--batch", type=_positive, default=8, help="pictures in a batch of that loader (8)")
    add("opts", nargs="*", metavar="KEY VALUE", help="config overrides, for --config-file")


def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 if a mapper and its reference differ, 2 for what users can mend."""
    import cv2
    import torch

    from mask2former.benchmark.cli import write_json
    from mask2former.benchmark.machine import describe, headline

    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads if args.threads > 1 else 0)
    facts = describe()
    print(headline(facts))
    with tempfile.TemporaryDirectory(prefix="mask2former-benchmark-") as folder:
        try:
            subjects = _own_config(args) if args.config_file else _synthetic(args, Path(folder))
            results = _measure_all(args, subjects)
        except _user_errors() as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    write_json(args.json, {"machine": facts, "results": results})
    return 1 if any("difference" in r for r in results) else 0


def _synthetic(args: argparse.Namespace, folder: Path) -> list[tuple[str, str, Any]]:
    """(mapper, pictures, config) of the chosen cases, whose pictures are written."""
    from tqdm import tqdm

    from mask2former.benchmark.mappers.cases import chosen_cases, config_of, register_pictures

    if args.opts:
        raise ValueError("KEY VALUE overrides go with --config-file only")
    cases = chosen_cases(args.mapper, args.pictures)
    if not cases:
        raise ValueError(f"no case has {' '.join(args.mapper)} on {' '.join(args.pictures)}")
    kinds = dict.fromkeys(case.pictures for case in cases)
    for kind in tqdm(kinds, desc="drawing pictures", leave=False, disable=None):
        register_pictures(folder, kind, args.images)
    return [(c.mapper, c.pictures, config_of(c, args.workers, args.batch)) for c in cases]


def _own_config(args: argparse.Namespace) -> list[tuple[str, str, Any]]:
    from mask2former.data.datasets import require_dataset_files
    from mask2former.engine import load_config

    cfg = load_config(args.config_file, args.opts)
    for name in cfg.DATASETS.TRAIN:
        require_dataset_files(name)
    cfg.DATALOADER.NUM_WORKERS = args.workers
    cfg.SOLVER.IMS_PER_BATCH = args.batch
    return [(cfg.INPUT.DATASET_MAPPER_NAME, cfg.DATASETS.TRAIN[0], cfg)]


def _measure_all(args: argparse.Namespace, subjects: list[tuple[str, str, Any]]) -> list[dict]:
    from tqdm import tqdm

    print(_ROW.format(*_HEAD))
    per_subject = args.warmups + args.rounds * (2 if args.workers else 1)
    results = []
    with tqdm(total=per_subject * len(subjects), unit="round", leave=False, disable=None) as bar:
        for mapper, pictures, cfg in subjects:
            bar.set_description(mapper)
            result = _measure(args, cfg, bar.update)
            results.append({"mapper": mapper, "pictures": pictures, **result})
            tqdm.write(_line(results[-1]))
    return results


def _measure(args: argparse.Namespace, cfg: Any, after_round: Any) -> dict[str, Any]:
    from mask2former.benchmark.mappers.measuring import (
        MapperBenchmark,
        ParityError,
        loader_throughput,
    )

    benchmark = MapperBenchmark(cfg, args.images)
    try:
        equal = benchmark.check_parity(draws=3)
    except ParityError as error:
        return {"difference": str(error)}
    rounds = benchmark.time(args.rounds, args.warmups, after_round)
    result: dict[str, Any] = {
        "equal_samples": equal,
        "ratio": rounds.ratio("reference", "mapper").as_dict(),
        "images_per_second": {
            name: rounds.rate(name, benchmark.samples).as_dict() for name in rounds.seconds
        },
        "seconds": rounds.seconds,
    }
    if args.workers:
        loaded = loader_throughput(cfg, batches=4, rounds=args.rounds, after_round=after_round)
        result["loader"] = {"workers": args.workers, "images_per_second": loaded.as_dict()}
    return result


def _line(result: dict[str, Any]) -> str:
    if "difference" in result:
        return f"{result['mapper']} on {result['pictures']}: NOT EQUAL, not timed. " + str(
            result["difference"]
        )
    rates = {name: f"{r['median']:.1f}" for name, r in result["images_per_second"].items()}
    ratio = result["ratio"]
    text = f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})"
    if "loader" in result:
        loader = result["loader"]
        per_second = loader["images_per_second"]["median"]
        text += f", {per_second:.1f} images/s from {loader['workers']} workers"
    columns = (result["mapper"], result["pictures"], rates["mapper"], rates["reference"])
    return _ROW.format(*columns, rates.get("reading", "-"), text)


def _user_errors() -> tuple[type[Exception], ...]:
    from mask2former.engine.errors import USER_ERRORS

    return (*USER_ERRORS, ValueError, FileNotFoundError)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value
