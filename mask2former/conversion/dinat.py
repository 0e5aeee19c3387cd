"""ImageNet checkpoints of DiNAT and NAT, for ``tools/convert-pretrained-dinat-model-to-d2.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mask2former.engine.errors import WeightsError


def unwrapped(data: Any, path: Path) -> dict[str, torch.Tensor]:
    """The weights, unchanged: at the top, under ``model``, or under ``state_dict``, or both.

    Raises:
        WeightsError: no tensors are there.
    """
    for key in ("model", "state_dict"):
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    held = list(data.items()) if isinstance(data, dict) else []
    if not held or not all(isinstance(value, torch.Tensor) for _, value in held):
        names = ", ".join(str(name) for name, _ in held[:4]) or type(data).__name__
        raise WeightsError(
            f"{path}: no weights at the top, under 'model' or under 'state_dict' (found: {names}). "
            "This tool takes the classification checkpoints of the DiNAT repository."
        )
    return data
