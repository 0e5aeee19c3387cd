"""A short set of all measurements, as one table in Markdown; what ``make bench`` runs.

Each measurement is a run of another subcommand, in its own process. One that fails (parity, a
package that is missing) is a line of the table, too; the exit status is 1 then.

  on the CPU, some minutes:
    python tools/benchmark.py table --output output/bench.md

  on a GPU (make bench-gpu):
    python tools/benchmark.py table --device cuda --output output/bench-gpu.md
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_R50 = "configs/coco/panoptic-segmentation/maskformer2_R50_bs16_50ep.yaml"
_SWIN = "configs/coco/panoptic-segmentation/swin/maskformer2_swin_tiny_bs16_50ep.yaml"
_REPO = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Row:
    """A measurement: its name, and the command line after ``tools/benchmark.py``."""

    name: str
    arguments: tuple[str, ...]


def _row(name: str, arguments: str) -> Row:
    return Row(name, tuple(arguments.split()))


# The table of the goals, in short: seconds to a few minutes each on two threads.
CPU = (
    _row("Inference R50, 512x683", f"infer --rounds 3 --memory --config-file {_R50}"),
    _row("Inference Swin-T, 512x683", f"infer --rounds 3 --memory --config-file {_SWIN}"),
    _row("Inference R50, bfloat16", f"infer --rounds 3 --dtype bfloat16 --config-file {_R50}"),
    _row("Inference R50, readable", f"infer --rounds 3 --peer reference --config-file {_R50}"),
    _row("Training step R50, 2 x 512x512", f"train --rounds 3 --memory --config-file {_R50}"),
    _row("Training step Swin-T, 2 x 512x512", f"train --rounds 3 --memory --config-file {_SWIN}"),
    _row(
        "Heads and criterion, 1024x960",
        f"train --rounds 3 --heads-only --size 1024 960 --images 1 --memory --config-file {_R50}",
    ),
    _row("Post-processing, three tasks", "post --rounds 5"),
    _row("Post-processing, panoptic", "post --rounds 5 --tasks panoptic"),
    _row("Post-processing, instance", "post --rounds 5 --tasks instance"),
    _row("Deformable attention", "op --rounds 3"),
    _row("Neighbourhood attention", "op --op neighborhood --rounds 3"),
    _row("Panoptic evaluation", "eval"),
    _row("LSJ mapper", "data --mapper coco_panoptic_lsj --rounds 5"),
    _row("Waiting for the device", "syncs --size 128 128 --images 1"),
)
_LARGE = f"--size 800 1344 --device cuda --config-file {_R50}"
_BF16 = "--dtype bfloat16"
CUDA = (
    _row("Deformable attention", "op --device cuda --rounds 20"),
    _row("Deformable attention, bf16, 8", f"op --device cuda --rounds 20 --images 8 {_BF16}"),
    _row("Neighbourhood attention", "op --op neighborhood --size 512 896 --device cuda"),
    _row("Inference R50", f"infer --rounds 20 --memory {_LARGE}"),
    _row("Inference R50, bf16", f"infer --rounds 20 --memory {_BF16} {_LARGE}"),
    _row("Inference R50, bf16, 8", f"infer --rounds 10 --images 8 --memory {_BF16} {_LARGE}"),
    _row("Inference R50, bf16, compiled", f"infer --rounds 20 --compile {_BF16} {_LARGE}"),
    _row(
        "Training step R50, bf16, 8 x 1024x1024",
        f"train --rounds 10 --size 1024 1024 --images 8 --memory {_BF16} --device cuda "
        f"--config-file {_R50}",
    ),
    _row("Post-processing", "post --device cuda --rounds 20"),
    _row("Waiting for the device", "syncs --device cuda --size 800 1344"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``tools/benchmark.py table``."""
    parser.add_argument("--output", metavar="FILE", default="output/bench.md", help="(%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", metavar="WORD", help="rows whose name contains it")


def run(args: argparse.Namespace) -> int:
    """Measures and writes; 1 if a measurement failed, 2 for what users can mend."""
    import torch

    from mask2former.benchmark.cli import write_json
    from mask2former.benchmark.machine import describe, headline

    if args.device == "cuda" and not torch.cuda.is_available():
        print("error: --device cuda: torch finds no GPU", file=sys.stderr)
        return 2
    rows = [r for r in (CPU if args.device == "cpu" else CUDA) if (args.only or "") in r.name]
    if not rows:
        print(f"error: --only {args.only}: no measurement has that in its name", file=sys.stderr)
        return 2
    facts = describe()
    results: dict[str, Any] = {}
    for number, row in enumerate(rows, start=1):
        print(f"[{number}/{len(rows)}] {row.name}", flush=True)
        results[row.name] = _measure(row)
    lines = [headline(facts), "", "| what | against | ours is ... as fast (min-max) | memory |"]
    lines += ["|---|---|---|---|", *(line for n, r in results.items() for line in table_rows(n, r))]
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    print(f"Wrote {output}")
    write_json(args.json, {"machine": facts, "results": results})
    return 1 if any("failed" in result for result in results.values()) else 0


def _measure(row: Row) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="mask2former-benchmark-") as folder:
        path = Path(folder) / "figures.json"
        command = [sys.executable, "tools/benchmark.py", *row.arguments, "--json", str(path)]
        process = subprocess.run(command, cwd=_REPO, stderr=subprocess.PIPE, text=True)
        if process.returncode or not path.exists():
            last = process.stderr.strip().splitlines() or [f"exit status {process.returncode}"]
            print(last[-1], file=sys.stderr)
            return {"failed": last[-1]}
        return json.loads(path.read_text())


def table_rows(name: str, result: dict[str, Any]) -> list[str]:
    """Lines of the table for one measurement, from the JSON of its subcommand."""
    if "failed" in result:
        return [f"| {name} | | {result['failed']} | |"]
    memory = result.get("extra_mebibytes", {})
    ours = next(iter(memory.values()), 0.0)
    lines = []
    for peer, ratio in result.get("ratios", {}).items():
        share = f"{ours / memory[peer]:.2f} of it" if memory.get(peer) else ""
        lines.append(f"| {name} | {peer} | {_text(ratio)} | {share} |")
    if "fraction_of_peak" in result:
        share = result["fraction_of_peak"]
        lines.append(f"| {name} | matrix products | {_text(share, '')} of their speed | |")
    if "ratio" in result:
        lines.append(f"| {name} | plain | {_text(result['ratio'])} | |")
    for subject, found in result.get("synchronisations", {}).items():
        lines.append(f"| {name}, {subject} | goal: at most 3 | {found['waits']} times | |")
    for item in result.get("results", ()):
        if "lowest_ratio" in item:
            keys = {"median": "ratio", "min": "lowest_ratio", "max": "highest_ratio"}
            ratio = {k: item[v] for k, v in keys.items()}
            what = f"{name}, {item['name']}"
            lines.append(f"| {what} | reference | {_text(ratio)} | |")
            if item.get("published"):
                ratio = dict(zip(("median", "min", "max"), item["published"]))
                lines.append(f"| {what} | published algorithm | {_text(ratio)} | |")
            if item.get("bound_seconds"):
                share = item["bound_seconds"] / item["kernel_seconds"]
                lines.append(f"| {what} | a copy of as many bytes | {share:.2f} of its speed | |")
        elif "ratio" in item:
            lines.append(f"| {name}, {item['pictures']} | plain | {_text(item['ratio'])} | |")
    return lines


def _text(ratio: dict[str, float], unit: str = "x") -> str:
    return f"{ratio['median']:.2f}{unit} ({ratio['min']:.2f}-{ratio['max']:.2f})"
