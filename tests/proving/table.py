"""The matrix as markdown, and in one line."""

import gzip
import json
import os
import platform
import sys
from datetime import date

from .downloads import DOWNLOADS, REPO, download_of
from .matrix import Proof
from .running import Outcome
from .shrinking import HEAD_CHANNELS, SIDE, shrinking

_HEAD = """# Proof of configs

Made by `python tools/prove_configs.py`. Every config that can be started was run on a tiny folder
with the true layout of its data set (file names, PNG codings and JSON fields as downloaded;
`tests/layouts`), prepared with the documented commands, and went through `train_net.py` on the CPU:
**prepare, register, one training step, checkpoint, evaluation**.

A row is proved when the preparation succeeded, the loss of the step is finite and every evaluator
of the table in the published code reported its metrics. The values of the metrics mean nothing (one
step from random weights). What perfect and corrupted predictions score is tested in
`tests/evaluation/test_perfect_predictions.py`.
"""


def markdown(proof: Proof) -> str:
    """The whole page."""
    import torch

    parts = [_HEAD, f"{summary(proof)}\n", _machine(torch.__version__), "## Preparation\n"]
    parts.append(_preparation(proof))
    published, own = _published(proof.outcomes)
    parts += ["## Published configs\n", _rows(published, proof)]
    if own:
        parts += ["## Configs of this project\n", _rows(own, proof)]
    parts.append("## What was made smaller\n")
    parts.append(_overrides())
    return "\n".join(parts)


def summary(proof: Proof) -> str:
    """How many were proved, in how long."""
    good = sum(o.proved for o in proof.outcomes)
    line = f"{good} of {len(proof.outcomes)} configs proved in {proof.seconds / 60:.1f} minutes"
    failed = [c for p in proof.prepared.values() for c in p.failed]
    return line + (f"; {len(failed)} preparation commands failed" if failed else "")


def _machine(torch_version: str) -> str:
    return (
        f"{date.today().isoformat()}, {os.cpu_count()} shared cores ({platform.machine()}), Python "
        f"{sys.version.split()[0]}, torch {torch_version}. Seconds are those of a run among others "
        "on the same machine.\n"
    )


def _preparation(proof: Proof) -> str:
    lines = ["| download | commands | outcome | s |", "|---|---|---|---|"]
    for key, prepared in proof.prepared.items():
        commands = "<br>".join(f"`{c}`" for c in DOWNLOADS[key].commands) or "none needed"
        why = "<br>".join(f"`{c}`: {_cell(text)}" for c, text in prepared.failed.items())
        lines.append(f"| {key} | {commands} | {why or 'ok'} | {prepared.seconds:.1f} |")
    return "\n".join(lines) + "\n"


def _published(outcomes: list[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
    """Those under a path that one of the published repositories has, and the others."""
    with gzip.open(REPO / "tests/fixtures/configs/published.json.gz") as f:
        paths = json.load(f)
    known = [o.config in paths for o in outcomes]
    return (
        [o for o, is_known in zip(outcomes, known) if is_known],
        [o for o, is_known in zip(outcomes, known) if not is_known],
    )


def _rows(outcomes: list[Outcome], proof: Proof) -> str:
    lines = [
        "| config | data sets (train, test) | task | prepare | step, loss | evaluation, metrics "
        "| s | outcome |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(o, proof) for o in outcomes]
    return "\n".join(lines) + "\n"


def _row(o: Outcome, proof: Proof) -> str:
    failed = {k for k in {download_of(d) for d in o.datasets} if proof.prepared[k].failed}
    cells = [
        o.config.removeprefix("configs/").removesuffix(".yaml"),
        "<br>".join(o.datasets),
        o.task,
        f"in part: {', '.join(sorted(failed))}" if failed else "ok",
        "" if o.loss != o.loss else f"{o.loss:.1f}",
        _grouped(o),
        f"{o.seconds:.1f}",
        "proved" if o.proved else f"**not proved**: {_cell(o.reason)}",
    ]
    return "| " + " | ".join(cells) + " |"


def _grouped(o: Outcome) -> str:
    tasks: dict[str, list[str]] = {}
    for name in o.metrics:
        task, _, metric = name.partition("/")
        tasks.setdefault(task, []).append(metric)
    return "<br>".join(f"{task}: {', '.join(names)}" for task, names in tasks.items())


def _overrides() -> str:
    from mask2former.engine.setup import load_config

    given = shrinking(load_config("", []))
    listed = "\n".join(
        f"| `{key}` | `{value}` |"
        for key, value in given.items()
        if not key.endswith(("EMBED_DIM", "SIZE_DIVISIBILITY", "PRETRAINED"))
    )
    return (
        f"| key | value |\n|---|---|\n{listed}\n"
        f"| `MODEL.SWIN.EMBED_DIM`, `MODEL.DINAT.EMBED_DIM` | {HEAD_CHANNELS} per head (32) |\n"
        f"| `MODEL.VIT_ADAPTER.EMBED_DIM`, `OPTIONS` of timm's transformers | {HEAD_CHANNELS} per "
        "head (64) |\n"
        "| `MODEL.TIMM.OPTIONS` of ConvNeXt | a twelfth of the widths or less |\n"
        "| `MODEL.TIMM.PRETRAINED`, `MODEL.VIT_ADAPTER.PRETRAINED` | `False` |\n"
        f"| `INPUT.SIZE_DIVISIBILITY`, where positive | {SIDE} |\n\n"
        "Everything else is as the file says: data sets and classes, mapper, augmentations, "
        "backbone with its depths, heads, windows and dilations, decoders, losses, optimizer, "
        "schedule, clipping, mixed precision, test switches.\n"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
