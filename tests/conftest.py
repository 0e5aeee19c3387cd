"""Shared test setup: GPU tests are skipped, visibly, where there is no GPU; tests log apart."""

import logging

import pytest
import torch

from detectron2.utils.logger import setup_logger
from mask2former.ops import token_layers
from mask2former.ops.libraries import TOKEN_LAYERS, MissingLibrary, load


def pytest_collection_modifyitems(config, items):
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def own_log_handlers():
    """Takes away the handlers a test set up: they write to its captured output, closed after it."""
    names = ("", "detectron2", "mask2former", "fvcore")
    before = {name: list(logging.getLogger(name).handlers) for name in names}
    yield
    for name, handlers in before.items():
        logger = logging.getLogger(name)
        for handler in set(logger.handlers) - set(handlers):
            logger.removeHandler(handler)
    setup_logger.cache_clear()  # or the next test's call would add none


@pytest.fixture
def token_calls(monkeypatch):
    """A list of calls of the kernels of token layers; each wants the library."""
    try:
        load("cpu", TOKEN_LAYERS)
    except MissingLibrary as error:
        pytest.skip(str(error))
    calls = []

    def counted(*args):
        calls.append(args)
        return load(*args)

    monkeypatch.setattr(token_layers, "load", counted)
    return calls
