"""Weights of other projects and formats: reading them, renaming them, reporting what fitted."""

from .huggingface import from_huggingface, load_in_transformers, to_huggingface
from .pretrained import run_converter, under_model, write_pickle
from .reading import read_file, read_weights, weights_in

__all__ = [
    "from_huggingface",
    "load_in_transformers",
    "read_file",
    "read_weights",
    "run_converter",
    "to_huggingface",
    "under_model",
    "weights_in",
    "write_pickle",
]
