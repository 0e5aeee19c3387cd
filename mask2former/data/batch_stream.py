"""Which samples make up which batch, decided in the main process and therefore repeatable."""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image
from torch.utils.data import Sampler

from detectron2.utils.file_io import PathManager

from .dataset_mappers.reading import DECODE_FAILURES

_EXIF_ORIENTATION = 274
_EXIF_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height

Item = tuple[int, int]


class BatchStream(Sampler):
    """An endless batch sampler that yields lists of (global position, index).

    The position counts samples over all processes: the n-th sample of process r has position
    ``n * world_size + r``. It is what a sample's random stream is seeded with.

    With ``is_wide`` batches hold either wide or tall images, as detectron2's
    AspectRatioGroupedDataset makes them: a batch goes out when its bucket is full. Detectron2
    groups what workers happen to deliver; here the sizes decide beforehand, so the stream is the
    same for any number of workers.
    """

    def __init__(
        self,
        sampler: Sampler,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        first_batch: int = 0,
        is_wide: Callable[[int], bool] | None = None,
    ) -> None:
        """
        Args:
            sampler: endless, yields this process's indices.
            batch_size: samples a batch of this process.
            first_batch: batches to leave out; costs no decoding.
            is_wide: tells whether image ``index`` is wider than high; None: no grouping.
        """
        self._sampler = sampler
        self._batch_size = batch_size
        self._rank = rank
        self._world_size = world_size
        self._first_batch = first_batch
        self._is_wide = is_wide

    def __iter__(self) -> Iterator[list[Item]]:
        buckets: tuple[list[Item], list[Item]] = ([], [])
        made = 0
        for count, index in enumerate(self._sampler):
            side = 0 if self._is_wide is None else int(self._is_wide(int(index)))
            bucket = buckets[side]
            bucket.append((count * self._world_size + self._rank, int(index)))
            if len(bucket) == self._batch_size:
                if made >= self._first_batch:
                    yield list(bucket)
                made += 1
                bucket.clear()


def orientation_of(records: list[dict]) -> Callable[[int], bool]:
    """A function that tells whether record ``index`` has an image wider than high.

    Records that state width and height answer at once; for others the image's header is read when
    first asked for. Records without an image (crop sampling) all count as not wide.
    """
    if all("width" in r and "height" in r for r in records):
        wide = np.array([r["width"] > r["height"] for r in records])
        return lambda index: bool(wide[index])
    return _HeaderOrientation([r.get("file_name") for r in records])


class _HeaderOrientation:
    def __init__(self, file_names: list[str | None]) -> None:
        self._file_names = file_names
        self._known: dict[int, bool] = {}

    def __call__(self, index: int) -> bool:
        if index not in self._known:
            self._known[index] = _is_wide(self._file_names[index])
        return self._known[index]


def _is_wide(file_name: str | None) -> bool:
    if file_name is None:
        return False
    try:
        with PathManager.open(file_name, "rb") as f, Image.open(f) as image:
            width, height = image.size
            sideways = image.getexif().get(_EXIF_ORIENTATION) in _EXIF_SIDEWAYS
    except DECODE_FAILURES:
        return False  # a broken image is reported and replaced when it is its turn
    return (height > width) if sideways else (width > height)
