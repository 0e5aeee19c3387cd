"""Says at the end how many images could not be decoded."""

import logging
from collections.abc import Iterable, Iterator

from detectron2.engine import HookBase

logger = logging.getLogger(__name__)


class CorruptImagesReport(HookBase):
    """After training, each process names the images it replaced by others."""

    def after_train(self) -> None:
        _report("Training", self.trainer.data_loader)


class _ReportingLoader:
    def __init__(self, loader: Iterable):
        self._loader = loader
        self.dataset = getattr(loader, "dataset", None)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator:
        yield from self._loader
        _report("Evaluation", self._loader)


def reporting(loader: Iterable) -> Iterable:
    """The same test loader; at its end it says which images it skipped."""
    return _ReportingLoader(loader)


def _report(what: str, loader: Iterable) -> None:
    log = getattr(loader, "corrupt_images", None)
    summary = log.summary() if log is not None else None
    if summary:
        logger.warning("%s: %s", what, summary)
