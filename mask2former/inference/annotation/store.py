"""What a run has finished, one file an image, so that it can be killed at any moment."""

import contextlib
import fcntl
import hashlib
import itertools
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from .proposals import Proposal

logger = logging.getLogger(__name__)

_PARTIAL = ".partial"
# Settings that change nothing in a prediction.
_IRRELEVANT = ("OUTPUT_DIR", "DATALOADER", "SOLVER", "VIS_PERIOD", "CUDNN_BENCHMARK", "SAVE_DIR")


def write_atomically(path: Path, data: bytes) -> None:
    """The file has its old content or the new, at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not the file's own name with an ending: that may be as long as names can be.
    partial = path.with_name(hashlib.sha256(path.name.encode()).hexdigest()[:32] + _PARTIAL)
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@contextlib.contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Nobody else writes into ``folder`` (which is created) meanwhile; ends with the process.

    Raises:
        ValueError: another run is writing there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"--output_dir {folder}: another run is writing there; wait for it, or choose "
                "another folder"
            ) from error
        except OSError as error:  # a network drive, for one
            logger.warning("%s cannot be locked (%s): start no second run there", folder, error)
        yield
    finally:
        os.close(descriptor)


def remove_partials(folder: Path) -> None:
    """Removes what a killed run left half-written."""
    for path in folder.rglob("*" + _PARTIAL):
        path.unlink()


def fingerprint(cfg: CfgNode, options: Any) -> str:
    """Identifies what decides about predictions: config, weights (their content) and options."""
    settings = cfg.clone()
    settings.defrost()
    for key in _IRRELEVANT:
        settings.pop(key, None)
    digest = hashlib.sha256(repr(options).encode())
    if os.path.isfile(cfg.MODEL.WEIGHTS):
        settings.MODEL.WEIGHTS = ""  # its content counts, not where it lies
        with open(cfg.MODEL.WEIGHTS, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update(settings.dump().encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Finished:
    """What is known of a finished image."""

    proposals: list[Proposal]
    uncertainty: float


class Store:
    """Checkpoints in ``folder``, one a key; those of other settings or pictures do not count."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self.settings = settings

    def path(self, key: str) -> Path:
        """Where the checkpoint of an image is."""
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"

    def save(
        self, key: str, picture: str, proposals: Sequence[Proposal], uncertainty: float
    ) -> None:
        """Writes the checkpoint of an image; ``picture`` changes when its file does."""
        content = {
            "image": key,
            "picture": picture,
            "settings": self.settings,
            "uncertainty": uncertainty,
            "proposals": [p.to_json() for p in proposals],
        }
        write_atomically(self.path(key), json.dumps(content).encode())

    def load(self, key: str, picture: str) -> Finished | None:
        """The checkpoint of an image; None where there is none of these settings and picture."""
        content = self._read(self.path(key))
        wanted = {"image": key, "picture": picture, "settings": self.settings}
        if content is None or any(content.get(k) != v for k, v in wanted.items()):
            return None
        proposals = [Proposal.from_json(p) for p in content["proposals"]]
        return Finished(proposals, content["uncertainty"])

    def has(self, key: str, picture: str) -> bool:
        """Whether the image is finished."""
        return self.path(key).exists() and self.load(key, picture) is not None

    def put(self, partial: Path, target: Path) -> None:
        """Moves a finished file to its place, and what somebody else put there out of the way."""
        new, written = _digest(partial), self._written(target)
        self.set_aside(target, besides=new)
        if new not in written:
            record = "\n".join([*written, new, ""])
            write_atomically(self._record(target), record.encode())
        partial.replace(target)

    def set_aside(self, target: Path, besides: str = "") -> Path | None:
        """Renames ``target`` unless it is as this script wrote it, or has the SHA-256 ``besides``.

        Returns:
            its new name; None where it stays or does not exist.
        """
        if not target.exists() or _digest(target) in (besides, *self._written(target)):
            return None
        moved = target.rename(_free_name(target))
        logger.warning("%s was not written by this script: it is %s now", target, moved.name)
        return moved

    def _record(self, target: Path) -> Path:
        return self.folder / f"{target.name}.sha256"

    def _written(self, target: Path) -> list[str]:
        record = self._record(target)
        return record.read_text().split() if record.exists() else []

    def of_other_settings(self) -> int:
        """How many checkpoints another model, config or other options made."""
        contents = (self._read(path) for path in self.folder.glob("*.json"))
        return sum(c is not None and c["settings"] != self.settings for c in contents)

    @staticmethod
    def _read(path: Path) -> dict[str, Any] | None:
        try:
            return json.loads(path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.stem}.before-{n}{path.suffix}") for n in itertools.count(1))
    return next(name for name in names if not name.exists())
