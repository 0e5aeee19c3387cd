"""Activation checkpointing that knows which implementation of the ops ran."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import checkpoint as torch_checkpoint

from mask2former.ops.implementation import use_implementation, wants_reference


def checkpoint(function: Callable, *arguments) -> Any:
    """``function(*arguments)``, whose activations are made again in backward instead of kept.

    As ``torch.utils.checkpoint.checkpoint`` (Chen et al. 2016), and what is made again is made by
    the implementation that ran at first: backward comes after ``use_implementation`` has ended, and
    other ops keep other tensors, which PyTorch would take for those of the first ones.
    """
    options = {}
    if wants_reference() and not torch.compiler.is_compiling():  # a graph makes the same again
        options["context_fn"] = lambda: (
            use_implementation("reference"),
            use_implementation("reference"),
        )
    return torch_checkpoint.checkpoint(function, *arguments, use_reentrant=False, **options)
