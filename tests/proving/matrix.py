"""All configs at once: data prepared one time, then a pool of processes that take configs."""

import contextlib
import multiprocessing as mp
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import yaml
from tqdm import tqdm

from .downloads import DOWNLOADS, REPO, Prepared, download_of, prepare
from .process import start_like_a_command
from .running import Outcome, prove

# Their own data is drawn, not laid out like a download; tests/engine trains on them.

_OTHER_DATA = ("configs/shapes/",)
# Published files that only serve as bases, though they are not called so: a ResNet cannot give the
# class maps that SeMask's decoder needs.
_BASES = ("semask_maskformer2_R50",)


@dataclass
class Proof:
    """Outcomes of a matrix.

    Attributes:
        prepared: by key of `DOWNLOADS`.
        outcomes: in the order of the configs.
        seconds: of everything.
    """

    prepared: dict[str, Prepared]
    outcomes: list[Outcome]
    seconds: float

    @property
    def complete(self) -> bool:
        """Everything prepared, every config proved."""
        return all(o.proved for o in self.outcomes) and not any(
            p.failed for p in self.prepared.values()
        )


def find_configs(words: Sequence[str] = ()) -> list[str]:
    """Configs that can be started, relative to the repository.

    Files called Base-* (and two of SeMask's) are left out: others only build on them.
    """
    paths = sorted(p.relative_to(REPO).as_posix() for p in (REPO / "configs").rglob("*.yaml"))
    return [
        p
        for p in paths
        if not Path(p).name.startswith(("Base-", *_BASES))
        and not p.startswith(_OTHER_DATA)
        and (not words or any(w in p for w in words))
    ]


def downloads_of(configs: Sequence[str]) -> list[str]:
    """Keys of `DOWNLOADS` that the configs' data sets come from."""
    found = {download_of(name) for c in configs for name in _datasets(REPO / c)}
    return [key for key in DOWNLOADS if key in found]


def run_matrix(
    configs: Sequence[str], data: Path, runs: Path, *, workers: int, eval_only: bool = False
) -> Proof:
    """Prepares the data under ``data`` and proves each config.

    Args:
        runs: folder of logs and of outputs, which are removed as they come.
        workers: processes; each serves many configs.
        eval_only: as in `prove`.
    """
    start = time.perf_counter()
    data, runs = data.resolve(), runs.resolve()
    data.mkdir(parents=True, exist_ok=True)
    runs.mkdir(parents=True, exist_ok=True)
    print("preparing", ", ".join(keys := downloads_of(configs)), flush=True)
    prepared = prepare(keys, data)
    os.environ["DETECTRON2_DATASETS"] = str(data)  # for the processes to come
    outcomes: dict[str, Outcome] = {}
    with ProcessPoolExecutor(
        min(workers, len(configs)), mp.get_context("spawn"), _quiet, (str(runs),)
    ) as pool:
        futures = [pool.submit(prove, c, runs / _slug(c), eval_only=eval_only) for c in configs]
        for future in tqdm(as_completed(futures), total=len(futures), unit="config"):
            outcome = future.result()
            outcomes[outcome.config] = outcome
            if not outcome.proved:
                tqdm.write(f"FAILED {outcome.config}: {outcome.reason}")
    return Proof(prepared, [outcomes[c] for c in configs], time.perf_counter() - start)


def _quiet(folder: str) -> None:
    """Sends all that a worker prints to a file: many runs write at the same time."""
    start_like_a_command()
    log = open(os.path.join(folder, f"worker_{os.getpid()}.log"), "w")  # noqa: SIM115 - for good
    with contextlib.suppress(OSError):
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def _slug(config: str) -> str:
    return config.removeprefix("configs/").removesuffix(".yaml").replace("/", "__")


def _datasets(path: Path) -> set[str]:
    """Data sets that a YAML names, following ``_BASE_``."""
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    base = content.get("_BASE_")
    found = {"TRAIN": set(), "TEST": set()}
    for split in found:
        names = content.get("DATASETS", {}).get(split)
        if names is not None:
            # detectron2's YAML writes tuples: ("a",)
            listed = names.strip("()").split(",") if isinstance(names, str) else names
            found[split] = {n.strip().strip("'\"") for n in listed} - {""}
    here = found["TRAIN"] | found["TEST"]
    return here or (_datasets(path.parent / base) if base else set())
