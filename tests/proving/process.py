"""A process of its own for tests that need published data set names under a tiny root.

Paths are registered when mask2former is imported, which the test's own process has done already.
"""

import multiprocessing as mp
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

from .downloads import prepare_here


class TinyProcess:
    """Runs functions where ``$DETECTRON2_DATASETS`` is ``root``; prepares downloads once.

    Args:
        root: an empty folder.
        images: of each split.
    """

    def __init__(self, root: Path, images: int = 2):
        self._root, self._images = root, images
        self._prepared: set[str] = set()
        self._pool = ProcessPoolExecutor(1, mp.get_context("spawn"), start_like_a_command)

    def need(self, *keys: str) -> None:
        """Downloads and prepares sets, by key of `DOWNLOADS`, unless that has been done."""
        new = [key for key in keys if key not in self._prepared]
        if new:
            self.run(prepare_here, new, self._root, images=self._images)
            self._prepared.update(new)

    def run(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """What the function returns there; it must be importable by name."""
        # The process starts with the first call and inherits the variable.
        with mock.patch.dict(os.environ, {"DETECTRON2_DATASETS": str(self._root)}):
            return self._pool.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown()


def start_like_a_command() -> None:
    """For processes of a pool: their own processes start as those of a command line do.

    They would inherit "spawn", with which reading the polygons of Cityscapes takes ten seconds of
    imports.
    """
    mp.set_start_method("fork", force=True)
