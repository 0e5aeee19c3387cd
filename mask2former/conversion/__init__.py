"""Weights of other projects and formats: reading them, renaming them, reporting what fitted."""

from .pretrained import run_converter, under_model, write_pickle
from .reading import read_file, read_weights, weights_in

__all__ = [
    "read_file",
    "read_weights",
    "run_converter",
    "under_model",
    "weights_in",
    "write_pickle",
]
