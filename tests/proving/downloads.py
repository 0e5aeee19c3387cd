"""From nothing to prepared data: tiny downloads, and the published commands that prepare them."""

import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from layouts.ade20k import write_ade20k, write_ade20k_full
from layouts.cityscapes import write_cityscapes
from layouts.coco import write_coco
from layouts.coco_stuff import write_coco_stuff_10k
from layouts.lvis import write_lvis
from layouts.mapillary import write_mapillary
from layouts.safetybarrier import write_safetybarrier

REPO = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Download:
    """One download and how its users prepare it.

    Attributes:
        write: makes the tiny folder under a root.
        commands: as documented; run from the repository with ``$DETECTRON2_DATASETS`` set.
    """

    write: Callable[..., None]
    commands: tuple[str, ...] = ()


_CITYSCAPES = "CITYSCAPES_DATASET=$DETECTRON2_DATASETS/cityscapes python -m "
DOWNLOADS = {
    "coco": Download(
        write_coco,
        (
            "python datasets/prepare_coco_semantic_annos_from_panoptic_annos.py",
            "python datasets/prepare_panoptic_fpn.py",
        ),
    ),
    "coco_stuff_10k": Download(
        write_coco_stuff_10k, ("python datasets/prepare_coco_stuff_10k.py",)
    ),
    "ade20k": Download(
        write_ade20k,
        (
            "python datasets/prepare_ade20k_sem_seg.py",
            "python datasets/prepare_ade20k_ins_seg.py",
            "python datasets/prepare_ade20k_pan_seg.py",
        ),
    ),
    "ade20k_full": Download(write_ade20k_full, ("python datasets/prepare_ade20k_full_sem_seg.py",)),
    "cityscapes": Download(
        write_cityscapes,
        (
            _CITYSCAPES + "cityscapesscripts.preparation.createTrainIdLabelImgs",
            _CITYSCAPES + "cityscapesscripts.preparation.createPanopticImgs",
            "python mask2former/data/datasets/prepare_cityscapes_sampling.py",
        ),
    ),
    "mapillary": Download(
        write_mapillary,
        (
            "python datasets/prepare_mapillary_vistas_ins_seg.py",
            "python mask2former/data/datasets/prepare_mapillary_sampling.py",
        ),
    ),
    "lvis": Download(write_lvis),
    "safetybarrier": Download(write_safetybarrier),
}


def download_of(dataset: str) -> str:
    """Key of `DOWNLOADS` for a registered name."""
    order = ("coco_stuff_10k", "ade20k_full")
    if "stuff_10k" in dataset:
        return order[0]
    fitting = [k for k in (*order, *DOWNLOADS) if dataset.startswith(k)]
    if not fitting:
        raise ValueError(f"no tiny download for data set {dataset}")
    return fitting[0]


@dataclass(frozen=True)
class Prepared:
    """What preparing one download came to.

    Attributes:
        failed: command -> last line of its output, of those that ended with an error.
        seconds: of all commands together.
    """

    failed: dict[str, str]
    seconds: float


def prepare(keys: Iterable[str], root: Path, images: int = 2) -> dict[str, Prepared]:
    """Writes the downloads under ``root`` and prepares them one after the other."""
    out = {}
    for key in keys:
        download = DOWNLOADS[key]
        download.write(root, images=images)
        start = time.perf_counter()
        runs = {command: _run(command, root) for command in download.commands}
        failed = {command: why for command, why in runs.items() if why}
        out[key] = Prepared(failed, time.perf_counter() - start)
    return out


def prepare_here(keys: Iterable[str], root: Path, images: int = 2) -> None:
    """As `prepare`, without a new process a command: what they import is imported once.

    ``$DETECTRON2_DATASETS`` must be ``root``.

    Raises:
        RuntimeError: a command failed.
    """
    for key in keys:
        DOWNLOADS[key].write(root, images=images)
        for command in DOWNLOADS[key].commands:
            _run_here(command, root)


def _run_here(command: str, root: Path) -> None:
    *assignments, program = command.partition("python ")[::2]
    for assignment in " ".join(assignments).split():
        name, _, value = assignment.partition("=")
        os.environ[name] = value.replace("$DETECTRON2_DATASETS", str(root))
    words = program.split()
    with mock.patch.object(sys, "argv", words[1:] if words[0] == "-m" else words):
        try:
            if words[0] == "-m":
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            else:
                runpy.run_path(str(REPO / words[0]), run_name="__main__")
        except SystemExit as error:
            if error.code:
                raise RuntimeError(f"{command}: exit status {error.code}") from error


def _run(command: str, root: Path) -> str:
    """Last line of what a failing command said; "" where it succeeded."""
    environment = {
        **os.environ,
        "DETECTRON2_DATASETS": str(root),
        "OMP_NUM_THREADS": "1",
    }
    command = command.replace("python ", f'"{sys.executable}" ', 1)
    done = subprocess.run(
        command,
        shell=True,
        cwd=REPO,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode == 0:
        return ""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"
