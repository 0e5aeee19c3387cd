#!/usr/bin/env python
"""Does Intra-Batch Supervision help on large pictures? A small experiment anyone can run on a CPU.

    python tools/ibs_experiment.py --output output/ibs --weights output/quickstart/model_final.pth

Makes a high-resolution "shapes" set (many small objects of few classes), trains on crops of 128
from the quickstart's checkpoint, with and without IBS and crop sampling, with several seeds and the
same budget, tests on whole pictures, and writes the table with its spread.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

REPO = Path(__file__).resolve().parent.parent
CONFIGS = REPO / "configs" / "shapes" / "panoptic-segmentation"
METRICS = ("PQ", "PQ_th", "PQ_st", "Acc_th", "Prec_th")
# Name of a variant -> its config and overrides.
VARIANTS = {
    "baseline (random crops)": ("maskformer2_R50_tiny_hires.yaml", []),
    "crop sampling": (
        "maskformer2_R50_tiny_hires_ibs_cropsampling.yaml",
        ["MODEL.MASK_FORMER.APPLY_IBS", "False"],
    ),
    "IBS + crop sampling": ("maskformer2_R50_tiny_hires_ibs_cropsampling.yaml", []),
}


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("output/ibs"), metavar="DIR")
    add("--weights", default="", help="checkpoint to start from (quickstart's; empty: scratch)")
    add("--seeds", type=int, nargs="+", default=[1, 2, 3])
    add("--iters", type=int, default=400, help="iterations a run (default: %(default)s)")
    add("--train-images", type=int, default=300)
    add("--val-images", type=int, default=60)
    add("--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side")
    add("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    return parser


def run_script(script: str, *arguments: str, root: Path, log: Path) -> None:
    """Runs a script of this repository on the experiment's data.

    Raises:
        RuntimeError: it fails; names its log.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "1"}
    with open(log, "w") as file:
        status = subprocess.run(
            [sys.executable, str(REPO / script), *arguments],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=REPO,
            check=False,
        ).returncode
    if status:
        raise RuntimeError(f"{script} ended with {status}; see {log}")


def prepare(args: argparse.Namespace) -> Path:
    """The pictures and the index for crop sampling; returns the data root."""
    root = (args.output / "datasets").resolve()
    picture = ["--min-side", "384", "--max-side", "512", "--max-things", "22"]
    picture += ["--min-radius", "0.03", "--max-radius", "0.09", "--crowd-share", "0", "--quiet"]
    counts = ["--train", str(args.train_images), "--val", str(args.val_images)]
    run_script(
        "datasets/prepare_shapes.py", *picture, *counts, root=root, log=args.output / "shapes.log"
    )
    run_script(
        "datasets/prepare_crop_sampling.py",
        *("--dataset", "shapes_panoptic_train"),
        root=root,
        log=args.output / "index.log",
    )
    return root


def train(args: argparse.Namespace, root: Path, variant: str, seed: int) -> dict[str, float]:
    """One run; returns its metrics. A finished run is not repeated."""
    config, overrides = VARIANTS[variant]
    folder = (
        args.output / f"{re.sub(r'[^a-z]+', '_', variant.lower()).strip('_')}_seed{seed}"
    ).resolve()
    if not (folder / "finished").exists():
        weights = str(Path(args.weights).resolve()) if args.weights else ""
        run_script(
            "train_net.py",
            *("--num-gpus", "0", "--config-file", str(CONFIGS / config), *overrides),
            *("OUTPUT_DIR", str(folder), "SEED", str(seed), "SOLVER.MAX_ITER", str(args.iters)),
            *("MODEL.WEIGHTS", weights),
            root=root,
            log=folder.with_suffix(".log"),
        )
        (folder / "finished").touch()
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "panoptic_seg/PQ" in line)
    return {metric: last[f"panoptic_seg/{metric}"] for metric in METRICS}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Mean and sample standard deviation over the seeds."""
    rows = []
    for variant, runs in results.items():
        cells = []
        for metric in METRICS:
            values = [run[metric] for run in runs]
            spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.1f}{spread}")
        rows.append([variant, len(runs), *cells])
    return tabulate(rows, headers=["variant", "seeds", *METRICS], tablefmt="github")


def main(argv: list[str] | None = None) -> int:
    """Prepares, trains, and writes the table; returns the exit status."""
    args = get_parser().parse_args(argv)
    began = time.time()
    args.output.mkdir(parents=True, exist_ok=True)
    try:
        root = prepare(args)
        runs = [(variant, seed) for seed in args.seeds for variant in args.variants]
        with ThreadPoolExecutor(args.jobs) as pool:
            futures = [pool.submit(train, args, root, *run) for run in runs]
            bar = tqdm(list(zip(runs, futures)), unit="run")
            found = [(variant, future.result()) for (variant, _), future in bar]
    except RuntimeError as error:
        print(f"ibs_experiment.py: {error}", file=sys.stderr)
        return 1
    results: dict[str, list[dict[str, float]]] = {variant: [] for variant in args.variants}
    for variant, metrics in found:
        results[variant].append(metrics)
    text = table(results)
    (args.output / "table.md").write_text(text + "\n")
    (args.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"{text}\n\n{args.iters} iterations a run, {time.time() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
