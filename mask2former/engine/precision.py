"""Which number type a training step computes in."""

import logging

import torch

from detectron2.config import CfgNode

from .errors import ConfigError

logger = logging.getLogger(__name__)

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def autocast_dtype(cfg: CfgNode, device: torch.device) -> torch.dtype | None:
    """The autocast type of ``cfg.SOLVER.AMP`` on ``device``; None is plain float32.

    ``auto`` is float16 on CUDA, as published, and bfloat16 on a CPU that multiplies it natively.
    Where the wish cannot be granted, one warning says so and training goes on in float32.

    Raises:
        ConfigError: SOLVER.AMP.DTYPE is not auto, float16 or bfloat16.
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    wish = cfg.SOLVER.AMP.DTYPE
    if wish not in ("auto", *_DTYPES):
        raise ConfigError(f"SOLVER.AMP.DTYPE is {wish!r}; possible are auto, float16 and bfloat16")
    if device.type == "cuda":
        dtype = _DTYPES.get(wish, torch.float16)
        if dtype is torch.bfloat16 and not torch.cuda.is_bf16_supported():
            return _float32("this GPU has no bfloat16 (SOLVER.AMP.DTYPE float16 would work)")
        return dtype
    if device.type != "cpu":
        return _float32(f"mixed precision is not supported on {device.type}")
    if wish == "float16":
        return _float32("float16 training needs a CUDA device (SOLVER.AMP.DTYPE bfloat16 does not)")
    # Asked for by name, bfloat16 is used even where the CPU emulates it, slowly.
    if wish == "bfloat16" or cpu_has_bfloat16():
        return torch.bfloat16
    return _float32("this CPU has no bfloat16 instructions")


def _float32(why: str) -> None:
    logger.warning("SOLVER.AMP.ENABLED: %s; training goes on in float32", why)


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 natively (AMX or AVX512-BF16)."""
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in probes)
