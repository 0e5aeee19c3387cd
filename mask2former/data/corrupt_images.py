"""Images that cannot be decoded: counted across worker processes, replaced, skipped or raised."""

import json
import logging
import os
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .dataset_mappers.reading import DECODE_FAILURES, ImageDecodeError

logger = logging.getLogger(__name__)


class CorruptImageLog:
    """Names of broken images, shared by a loader's worker processes.

    The entries are lines of a temporary file opened for appending, which works for forked and
    spawned workers alike. The file goes when the object of the creating process goes.
    """

    def __init__(self) -> None:
        handle, self._path = tempfile.mkstemp(prefix="mask2former-corrupt-images-")
        os.close(handle)
        weakref.finalize(self, _remove, self._path, os.getpid())

    def add(self, file_name: str, error: str) -> None:
        """Counts one failure; the first one of a file is a warning."""
        if file_name not in self.files():
            logger.warning("Leaving out an image that cannot be decoded: %s (%s)", file_name, error)
        with open(self._path, "a", encoding="utf-8") as f:
            f.write(json.dumps(file_name) + "\n")

    def _entries(self) -> list[str]:
        with open(self._path, encoding="utf-8") as f:
            return [json.loads(line) for line in f]

    def files(self) -> list[str]:
        """The broken files, in order of discovery, each once."""
        return list(dict.fromkeys(self._entries()))

    @property
    def count(self) -> int:
        """How many samples were left out so far; a file counts each time it came up."""
        return len(self._entries())

    def summary(self) -> str | None:
        """A sentence for the end of a run, or None if all was well."""
        files = self.files()
        if not files:
            return None
        listed = "\n  ".join(files[:20] + (["..."] if len(files) > 20 else []))
        return (
            f"{self.count} samples from {len(files)} undecodable files were left out:\n  {listed}"
        )


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner and os.path.exists(path):  # not when a forked worker exits
        os.remove(path)


class Skipped:
    """Takes the place of a test image that could not be decoded, until the batch is made."""


class GuardedTestMapper:
    """Wraps a test mapper: a broken image is skipped, or raises an error that names it."""

    def __init__(
        self,
        mapper: Callable[[dict[str, Any]], dict[str, Any]],
        *,
        skip: bool,
        corrupt_images: CorruptImageLog,
    ) -> None:
        self._mapper = mapper
        self._skip = skip
        self._corrupt_images = corrupt_images

    def __call__(self, record: dict[str, Any]) -> dict[str, Any] | Skipped:
        try:
            return self._mapper(record)
        except (ImageDecodeError, *DECODE_FAILURES) as error:
            name = str(getattr(error, "file_name", None) or record.get("file_name"))
            if not self._skip:
                raise ImageDecodeError(
                    f"Cannot decode {name}: {error}. Mend or remove it, or set "
                    'TEST.ON_CORRUPT_IMAGE "skip" to evaluate without it.',
                    name,
                ) from error
            self._corrupt_images.add(name, str(error))
            return Skipped()


def drop_skipped(batch: list) -> list[dict[str, Any]]:
    """Collates a test batch: a plain list without the skipped images, possibly empty."""
    return [sample for sample in batch if not isinstance(sample, Skipped)]


class SkippingLoader:
    """A test loader that passes over batches of which nothing is left.

    Attributes:
        dataset: of the wrapped loader.
        corrupt_images: the files that were skipped.
    """

    def __init__(self, loader: Iterable, corrupt_images: CorruptImageLog) -> None:
        self._loader = loader
        self.dataset = getattr(loader, "dataset", None)
        self.corrupt_images = corrupt_images

    def __len__(self) -> int:
        """Number of batches if none is passed over."""
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in self._loader:
            if batch:
                yield batch
