"""Which implementation of an op runs: the compiled kernel of the device, or the reference."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mask2former.ops.libraries import (
    ID_MAPS,
    MASK_STRIPS,
    MS_DEFORM_ATTN,
    NEIGHBORHOOD_ATTENTION,
    TOKEN_LAYERS,
    WINOGRAD,
    MissingLibrary,
    load,
)

logger = logging.getLogger(__name__)

VARIABLE = "MASK2FORMER_OPS"
MODES = ("auto", "reference", "kernel")

_mode = "auto"
_already_said: set[tuple[str, str]] = set()
_IN_WORDS = {
    ID_MAPS: "Reading and comparing panoptic maps",
    MS_DEFORM_ATTN: "Multi-scale deformable attention",
    MASK_STRIPS: "Post-processing of masks",
    NEIGHBORHOOD_ATTENTION: "Neighbourhood attention",
    TOKEN_LAYERS: "Inference of transformer layers",
    WINOGRAD: "Inference of 3 x 3 convolutions",
}
_INSTEAD = {ID_MAPS: "OpenCV and numpy"}


def set_implementation(mode: str) -> None:
    """Chooses for the whole process; so does the environment variable ``MASK2FORMER_OPS``.

    Args:
        mode: ``"auto"`` (the default): the compiled kernel of the tensors' device, or, where it is
            missing, the reference, which is logged once. ``"reference"``: always the readable
            PyTorch code. ``"kernel"``: the compiled kernel; where it is missing, an error.

    Raises:
        ValueError: for any other mode.
    """
    global _mode
    if mode not in MODES:
        raise ValueError(f"{VARIABLE} or mode must be one of {', '.join(MODES)}; got {mode!r}")
    _mode = mode


@contextmanager
def use_implementation(mode: str) -> Iterator[None]:
    """:func:`set_implementation` for the length of a ``with`` block (of every thread)."""
    before = _mode
    set_implementation(mode)
    try:
        yield
    finally:
        set_implementation(before)


def use_kernel(device_type: str, op: str = MS_DEFORM_ATTN) -> bool:
    """Whether a call of an op with tensors on such a device goes to a compiled kernel.

    Raises:
        RuntimeError: in mode ``"kernel"``, where there is none.
    """
    if _mode == "reference":
        return False
    return _has_kernel(device_type, op, required=_mode == "kernel")


def wants_reference() -> bool:
    """Whether mode ``"reference"`` is on."""
    return _mode == "reference"


@torch.compiler.assume_constant_result  # so that torch.compile runs it, log line and all
def _has_kernel(device_type: str, op: str, required: bool) -> bool:
    if device_type == "meta":  # shapes only, for which the op needs no library
        return True
    try:
        load(device_type, op)
    except MissingLibrary as error:
        if required:
            raise RuntimeError(f"no compiled kernel of {op}: {error}") from error
        if (op, device_type) not in _already_said:
            _already_said.add((op, device_type))
            logger.warning(
                "%s on %s runs in %s, which is correct but slower than the compiled kernel: %s.",
                _IN_WORDS.get(op, op),
                device_type,
                _INSTEAD.get(op, "PyTorch"),
                error,
            )
        return False
    return True


set_implementation(os.environ.get(VARIABLE, "auto"))
