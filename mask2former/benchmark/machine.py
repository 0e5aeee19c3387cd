"""What a figure was measured on."""

import os
import platform
from typing import Any


def describe() -> dict[str, Any]:
    """Machine, versions, threads and load, for the head of a report and for JSON."""
    import cv2
    import numpy
    import PIL
    import torch

    import detectron2

    cuda = torch.cuda.is_available()
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "pillow": PIL.__version__,
        "opencv": cv2.__version__,
        "detectron2": os.path.dirname(detectron2.__file__),
    }


def headline(facts: dict[str, Any]) -> str:
    """One line about the machine."""
    gpu = f", {facts['gpu']}" if facts["gpu"] else ""
    return (
        f"{facts['processor']}, {facts['cores']} cores (load {facts['load']}){gpu}; torch "
        f"{facts['torch']}, {facts['threads']} thread(s); Pillow {facts['pillow']}, OpenCV "
        f"{facts['opencv']}"
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()
