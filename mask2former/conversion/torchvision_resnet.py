"""Names of a ResNet: torchvision's (and mmdetection's, and timm's) as detectron2's.

conv1.weight             stem.conv1.weight
bn1.running_mean         stem.conv1.norm.running_mean
layer1.0.conv2.weight    res2.0.conv2.weight
layer1.0.downsample.1.*  res2.0.shortcut.norm.*
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from .reading import weights_in

_STAGES = {f"layer{i}": f"res{i + 1}" for i in range(1, 5)}


def to_detectron2(name: str) -> str:
    """One of torchvision's names as detectron2's; ``fc.weight`` becomes ``stem.fc.weight``."""
    if "layer" not in name:
        name = f"stem.{name}"
    name = re.sub(r"layer[1-4]", lambda stage: _STAGES[stage[0]], name)
    name = re.sub(r"bn([1-3])", r"conv\1.norm", name)
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def from_detectron2(name: str) -> str:
    """The inverse of :func:`to_detectron2` for the names of a backbone."""
    name = name.removeprefix("stem.")
    name = re.sub(r"res([2-5])", lambda stage: f"layer{int(stage[1]) - 1}", name)
    name = re.sub(r"conv([1-3])\.norm", r"bn\1", name)
    name = name.replace("shortcut.norm", "downsample.1")
    return re.sub(r"shortcut\.(?=weight|bias)", "downsample.0.", name)


def convert_torchvision(data: Any, path: Path) -> dict[str, np.ndarray]:
    """The weights of a torchvision ResNet as arrays under detectron2's names; prints each pair."""
    converted = {}
    for old, value in weights_in(data, path).items():
        new = to_detectron2(old)
        print(old, "->", new)
        converted[new] = value.numpy()
    return converted
