"""A report of what is installed: ``python -m detectron2.utils.collect_env``."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from collections import defaultdict

import numpy as np
import torch
from tabulate import tabulate

import detectron2
from detectron2._missing import missing_getattr

__all__ = ["collect_env_info"]


def get_env_module() -> tuple[str, str]:
    """The variable that names a custom environment module, and its value."""
    name = "DETECTRON2_ENV_MODULE"
    return name, os.environ.get(name, "<not set>")


def collect_torch_env() -> str:
    """How this torch was built, as text."""
    return torch.__config__.show()


def _provider() -> str:
    folder = os.path.dirname(detectron2.__file__)
    return f"d2lite (the small substitute of this project, API {detectron2.__version__}) @{folder}"


def _package(name: str, import_name: str | None = None) -> tuple[str, str]:
    """Row (name, version @folder) of a package."""
    try:
        module = importlib.import_module(import_name or name)
    except ImportError as error:
        return name, f"missing ({error})"
    version = getattr(module, "__version__", None)
    if version is None:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "unknown version"
    return name, f"{version} @{os.path.dirname(module.__file__ or '')}"


def _gpu_rows() -> list[tuple[str, str]]:
    rows = [("GPU available", "Yes" if torch.cuda.is_available() else "No")]
    if not torch.cuda.is_available():
        return rows
    devices: dict[str, list[str]] = defaultdict(list)
    for index in range(torch.cuda.device_count()):
        major, minor = torch.cuda.get_device_capability(index)
        devices[f"{torch.cuda.get_device_name(index)} (arch={major}.{minor})"].append(str(index))
    rows += [(f"GPU {','.join(indices)}", name) for name, indices in devices.items()]
    try:
        report = subprocess.run(
            ["nvidia-smi"], capture_output=True, text=True, timeout=20, check=True
        ).stdout
        found = re.search(r"Driver Version:\s*([\d.]+)", report)
        rows.append(("Driver version", found.group(1) if found else "unknown"))
    except (OSError, subprocess.SubprocessError) as error:
        rows.append(("Driver version", f"unknown ({error})"))
    rows.append(("CUDA of torch", str(torch.version.cuda)))
    return rows


def collect_env_info() -> str:
    """The whole report as text: first who provides ``detectron2``, then versions and devices."""
    rows: list[tuple[str, str]] = [
        ("detectron2 provided by", _provider()),
        ("sys.platform", f"{sys.platform} ({platform.machine()})"),
        ("Python", sys.version.replace("\n", "")),
        ("numpy", np.__version__),
        get_env_module(),
        ("PyTorch", f"{torch.__version__} @{os.path.dirname(torch.__file__)}"),
        ("PyTorch debug build", str(torch.version.debug)),
        ("CPU threads", f"{torch.get_num_threads()} of {os.cpu_count()} cores"),
        *_gpu_rows(),
        ("CUDA_HOME", os.environ.get("CUDA_HOME", "<not set>")),
        _package("Pillow", "PIL"),
        _package("torchvision"),
        _package("fvcore"),
        _package("iopath"),
        _package("cv2"),
        _package("pycocotools"),
    ]
    return f"{tabulate(rows)}\n{collect_torch_env()}"


def main() -> None:
    """Print the report, and try each GPU."""
    print(collect_env_info())
    for index in range(torch.cuda.device_count()):
        try:
            torch.tensor([1, 2.0], device=f"cuda:{index}")
        except RuntimeError as error:
            print(f"GPU {index} cannot be used: {error}")


__getattr__ = missing_getattr(__name__)

if __name__ == "__main__":
    main()
