"""The training set as (position, index) -> mapped record, with repeatable randomness."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from .corrupt_images import CorruptImageLog
from .dataset_mappers.reading import DECODE_FAILURES, ImageDecodeError

# Broken images in a row after which a folder, not an image, is to blame.
_MAX_REPLACEMENTS = 20


class TrainingSamples(Dataset):
    """Maps records; an image that cannot be decoded is replaced by another.

    Sample ``(position, index)`` is mapped with numpy's, Python's and torch's generators seeded by
    (seed, position), and the generators are put back afterwards, so a mapper in the main process
    does not disturb the trainer's randomness. The replacement of a broken image follows from
    (seed, position) too.
    """

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        mapper: Callable[[dict[str, Any]], dict[str, Any] | None],
        *,
        seed: int,
        corrupt_images: CorruptImageLog,
    ) -> None:
        """
        Args:
            records: fresh copies are handed out (``DatasetFromList`` does).
            mapper: may return None to ask for another record, as with detectron2's MapDataset.
            seed: at least 0.
            corrupt_images: where broken images are counted.
        """
        self._records = records
        self._mapper = mapper
        self._seed = seed
        self.corrupt_images = corrupt_images

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, item: tuple[int, int]) -> dict[str, Any]:
        position, index = item
        failure: Exception | None = None
        for attempt in range(_MAX_REPLACEMENTS):
            entropy = np.random.SeedSequence([self._seed, position, attempt])
            record = self._records[index]
            try:
                with seeded(entropy):
                    mapped = self._mapper(record)
                if mapped is not None:
                    return mapped
            except (ImageDecodeError, *DECODE_FAILURES) as error:
                failure = error
                name = getattr(error, "file_name", None) or record.get("file_name")
                self.corrupt_images.add(str(name), str(error))
            index = int(np.random.default_rng(entropy).integers(len(self._records)))
        raise ImageDecodeError(
            f"{_MAX_REPLACEMENTS} training samples in a row gave nothing to train on; the last "
            f"failure: {failure}. Is the dataset's folder complete?"
        ) from failure


@contextmanager
def seeded(entropy: np.random.SeedSequence) -> Iterator[None]:
    """Seeds the CPU generators of numpy, Python and torch inside the block only."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    torch_state = torch.get_rng_state()
    words = entropy.generate_state(4)
    try:
        np.random.seed(words)
        random.seed(int(words[0]) << 32 | int(words[1]))
        # Not torch.manual_seed: it would reach for the GPUs' generators too.
        torch.default_generator.manual_seed(int(words[2]) << 31 | int(words[3]) >> 1)
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
