"""Shared test setup: GPU tests are skipped, visibly, where there is no GPU; tests log apart."""

import logging

import pytest
import torch

from detectron2.utils.logger import setup_logger


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
