"""Process-wide environment: versions, seeds, one-time setup."""

import importlib
import importlib.util
import logging
import os
import random
import sys
import time

import numpy as np
import torch

from detectron2._missing import missing_getattr

__all__ = ["TORCH_VERSION", "seed_all_rng", "setup_custom_environment", "setup_environment"]

# (major, minor), e.g. (2, 11); local build suffixes such as "2.11.0+cpu" do not reach here.
TORCH_VERSION = tuple(int(x) for x in torch.__version__.split(".")[:2])

DOC_BUILDING = bool(os.environ.get("DOC_BUILDING"))


def seed_all_rng(seed: int | None = None) -> None:
    """Seed numpy's, torch's (all devices) and Python's global generators.

    Args:
        seed: None draws one from the clock, the process id and the system's entropy, and logs it.
    """
    if seed is None:
        entropy = int.from_bytes(os.urandom(2), "big")
        seed = (os.getpid() + time.time_ns() // 1000 + entropy) % (2**31)
        logging.getLogger(__name__).info("Using a generated random seed %d", seed)
    np.random.seed(seed % (2**32))
    torch.manual_seed(seed)
    random.seed(seed)
    # Only of use to child processes: this one's hashing was fixed when it started.
    os.environ["PYTHONHASHSEED"] = str(seed % (2**32))


_environment_is_set_up = False


def setup_environment() -> None:
    """One-time setup at the first ``import detectron2``.

    OpenCV's OpenCL is switched off: with it a worker process can hang or grab GPU memory.
    ``$DETECTRON2_ENV_MODULE`` may name a module (or ``.py`` file) with a function
    ``setup_environment()``, which is then called.
    """
    global _environment_is_set_up
    if _environment_is_set_up:
        return
    _environment_is_set_up = True
    # The variable acts on an OpenCV imported later, so that importing us need not import it.
    os.environ.setdefault("OPENCV_OPENCL_RUNTIME", "disabled")
    cv2 = sys.modules.get("cv2")
    if cv2 is not None and hasattr(cv2, "ocl"):
        cv2.ocl.setUseOpenCL(False)
    custom = os.environ.get("DETECTRON2_ENV_MODULE")
    if custom:
        setup_custom_environment(custom)


def setup_custom_environment(custom_module: str) -> None:
    """Import ``custom_module`` (dotted name or path of a .py file), call its ``setup_environment``.

    Raises:
        ImportError: the module has no callable ``setup_environment``.
    """
    if custom_module.endswith(".py"):
        spec = importlib.util.spec_from_file_location("detectron2_env_module", custom_module)
        if spec is None or spec.loader is None:
            raise ImportError(f"DETECTRON2_ENV_MODULE={custom_module} cannot be loaded")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(custom_module)
    setup = getattr(module, "setup_environment", None)
    if not callable(setup):
        raise ImportError(
            f"DETECTRON2_ENV_MODULE={custom_module} has no function setup_environment()"
        )
    setup()


__getattr__ = missing_getattr(__name__)
