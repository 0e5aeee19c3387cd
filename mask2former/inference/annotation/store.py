"""What a run has finished, one file an image, so that it can be killed at any moment."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from .proposals import Proposal

_PARTIAL = ".partial"
# Settings that change nothing in a prediction.
_IRRELEVANT = ("OUTPUT_DIR", "DATALOADER", "SOLVER", "VIS_PERIOD", "CUDNN_BENCHMARK", "SAVE_DIR")


def write_atomically(path: Path, data: bytes) -> None:
    """The file has its old content or the new, at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + _PARTIAL)
    with open(partial, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


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
    """Checkpoints in ``folder``, one a key; those of other settings do not count."""

    def __init__(self, folder: Path, settings: str) -> None:
        self.folder = folder
        self.settings = settings

    def path(self, key: str) -> Path:
        """Where the checkpoint of an image is."""
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"

    def save(self, key: str, proposals: Sequence[Proposal], uncertainty: float) -> None:
        """Writes the checkpoint of an image."""
        content = {
            "image": key,
            "settings": self.settings,
            "uncertainty": uncertainty,
            "proposals": [p.to_json() for p in proposals],
        }
        write_atomically(self.path(key), json.dumps(content).encode())

    def load(self, key: str) -> Finished | None:
        """The checkpoint of an image; None where there is none of these settings."""
        content = self._read(self.path(key))
        if content is None or content["settings"] != self.settings or content["image"] != key:
            return None
        proposals = [Proposal.from_json(p) for p in content["proposals"]]
        return Finished(proposals, content["uncertainty"])

    def has(self, key: str) -> bool:
        """Whether the image is finished."""
        return self.path(key).exists() and self.load(key) is not None

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
