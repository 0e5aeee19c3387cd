"""Reads the recorded parity cases under tests/fixtures/parity (see its README.md)."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent / "fixtures" / "parity"


@cache
def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def arrays(case: str, name: str) -> dict[str, np.ndarray]:
    """All arrays of ``<case>/<name>.npz``. Some recorded outputs are left out to save space."""
    return dict(_npz(ROOT / case / f"{name}.npz"))


def facts(case: str, name: str) -> dict:
    """The JSON file ``<case>/<name>.json``."""
    return json.loads((ROOT / case / f"{name}.json").read_text())


def weights(case: str) -> dict[str, torch.Tensor]:
    """The state dict of a case; floats are stored as float16, exactly, and returned as float32."""
    out = {}
    for key, value in arrays(case, "weights").items():
        tensor = torch.from_numpy(value)
        out[key] = tensor.float() if tensor.dtype == torch.float16 else tensor
    return out


def config_file(case: str) -> str:
    """Path of the YAML overrides of a case."""
    return str(ROOT / case / "config.yaml")


def deterministic_rand(*size, **kwargs) -> torch.Tensor:
    """Stands in for ``torch.rand`` as in the recordings: values depend on the shape only."""
    shape = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    seed = 0
    for dim in shape:
        seed = (seed * 1000003 + int(dim)) % 2**32
    values = np.random.RandomState(seed).random_sample(shape).astype(np.float32)
    kwargs = {k: v for k, v in kwargs.items() if k in ("device", "dtype")}
    return torch.from_numpy(values).to(**kwargs) if kwargs else torch.from_numpy(values)
