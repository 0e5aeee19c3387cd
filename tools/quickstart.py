#!/usr/bin/env python
"""Trains, evaluates and shows a small Mask2Former on the synthetic set "shapes".

What ``make quickstart`` runs. It goes the way of a real project, only smaller::

    datasets/prepare_shapes.py   ->   train_net.py   ->   metrics, curves, contact sheet

What is there already is reused: the data, and a training run of the same settings. An interrupted
training goes on from its last checkpoint.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))  # runs from a plain checkout too

CONFIG = REPO / "configs/shapes/panoptic-segmentation/maskformer2_R50_tiny.yaml"


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", default="output/quickstart", help="folder for everything made")
    parser.add_argument("--config-file", default=str(CONFIG), help="another config for shapes")
    parser.add_argument("--iters", type=int, help="iterations (default: the config's MAX_ITER)")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config overrides"
    )
    return parser


def prepare_data() -> None:
    """Generates the data set unless it is there, with whatever arguments it was made."""
    root = Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()
    if (root / "shapes/manifest.json").exists():
        print(f"Reusing the data in {root / 'shapes'}.")
        return
    subprocess.run([sys.executable, str(REPO / "datasets/prepare_shapes.py")], check=True)


def processes_and_device(config_file: str, opts: list[str]) -> tuple[int, str]:
    """One process on a GPU if there is one, else one single-threaded process per CPU core.

    On a CPU, data-parallel processes meet once a step, threads a thousand times: on a model this
    small they are faster, and they do not fall apart when the machine has other work to do. Their
    number divides the batch; each keeps at least two images, for the batch statistics.
    """
    import torch

    if torch.cuda.is_available():
        return 1, "cuda"
    batch = load_config(config_file, opts).SOLVER.IMS_PER_BATCH
    cores = os.cpu_count() or 1
    fitting = [n for n in range(1, cores + 1) if batch % n == 0 and batch // n >= 2]
    return max(fitting, default=1), "cpu"


def load_config(config_file: str, opts: list[str]):
    """The complete config of a run."""
    from detectron2.config import get_cfg
    from detectron2.projects.deeplab import add_deeplab_config
    from mask2former import add_maskformer2_config

    cfg = get_cfg()
    add_deeplab_config(cfg)
    add_maskformer2_config(cfg)
    cfg.merge_from_file(config_file)
    cfg.merge_from_list(opts)
    return cfg


def train(config_file: str, output: Path, opts: list[str]) -> dict:
    """Trains and evaluates with train_net.py, or finds that this has been done.

    Returns:
        ``{"seconds": ..., "processes": ..., "peak_memory_gb": ...}`` of the run.
    """
    facts_file = output / "quickstart.json"
    settings = load_config(config_file, opts).dump()
    facts = json.loads(facts_file.read_text()) if facts_file.exists() else {}
    same = facts.get("settings") == settings
    if same and (output / "model_final.pth").exists() and "seconds" in facts:
        print(f"Reusing the training run in {output} (remove the folder to train again).")
        return facts
    if not same:
        # Another run's checkpoint must not be resumed, nor its curves be drawn.
        for name in ("last_checkpoint", "metrics.json", "model_final.pth"):
            (output / name).unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)
    facts = {"settings": settings}
    facts_file.write_text(json.dumps(facts))
    processes, device = processes_and_device(config_file, opts)
    command = [sys.executable, str(REPO / "train_net.py"), "--num-gpus", str(processes), "--resume"]
    command += ["--config-file", config_file, "OUTPUT_DIR", str(output)]
    command += ["MODEL.DEVICE", device, *opts]
    print("Running:", " ".join(command), flush=True)
    began = time.time()
    subprocess.run(command, check=True, env={"OMP_NUM_THREADS": "1", **os.environ})
    facts["seconds"] = time.time() - began
    facts["processes"] = processes
    # ru_maxrss is in KiB on Linux, in bytes on macOS: of the largest process, workers apart.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    facts["peak_memory_gb"] = peak / 1024**3
    facts_file.write_text(json.dumps(facts))
    return facts


def write_report(config_file: str, output: Path, opts: list[str], facts: dict) -> list[Path]:
    """Writes the metrics table, the curves and the contact sheet; returns their paths."""
    from mask2former.inference import report

    weights = str(output / "model_final.pth")
    cfg = load_config(config_file, [*opts, "MODEL.WEIGHTS", weights, "MODEL.DEVICE", "cpu"])
    rows = report.read_metrics(output / "metrics.json")
    table = report.metrics_table(
        report.final_metrics(rows),
        {
            "data": f"{cfg.DATASETS.TRAIN[0]} -> {cfg.DATASETS.TEST[0]}",
            "iterations": str(cfg.SOLVER.MAX_ITER),
            "training and evaluation": f"{facts['seconds'] / 60:.1f} min "
            f"on {os.cpu_count()} CPU cores",
            "processes": str(facts["processes"]),
            "peak memory of a process": f"{facts['peak_memory_gb']:.2f} GB",
            "config": os.path.relpath(config_file),
        },
    )
    files = [output / name for name in ("metrics.md", "curves.png", "contact_sheet.png")]
    files[0].write_text(table)
    report.draw_curves(rows, files[1])
    report.contact_sheet(cfg, files[2])
    print(f"\n{table}")
    return files


def main(argv: list[str] | None = None) -> int:
    """Runs all steps; returns the exit status."""
    args = get_parser().parse_args(argv)
    output = Path(args.output)
    opts = list(args.opts)
    if args.iters:
        # Decay and evaluation keep their places relative to the length of the run.
        opts += ["SOLVER.MAX_ITER", str(args.iters), "TEST.EVAL_PERIOD", "0"]
    try:
        prepare_data()
        facts = train(args.config_file, output, opts)
    except subprocess.CalledProcessError as error:
        print(f"quickstart: {error.cmd[1]} ended with status {error.returncode}", file=sys.stderr)
        return 1
    files = write_report(args.config_file, output, opts, facts)
    print("Written:")
    for path, meaning in zip(files, ("metrics", "loss and metric curves", "pictures to look at")):
        print(f"  {path}  ({meaning})")
    print(f"  {output / 'model_final.pth'}  (weights; try them with demo/demo.py)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
