"""Data-set wrappers: compact lists, mapping with a second try, iteration, grouping by shape."""

import contextlib
import itertools
import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch.utils import data

from detectron2._missing import missing_getattr
from detectron2.utils.serialize import PicklableWrapper

__all__ = [
    "AspectRatioGroupedDataset",
    "DatasetFromList",
    "MapDataset",
    "ToIterableDataset",
    "set_default_dataset_from_list_serialize_method",
]

logger = logging.getLogger(__name__)


class _SerializedList:
    """A list pickled into one byte tensor, with the end of each element.

    A forked worker reads the pages of its parent; a list of dicts instead would be copied piece
    by piece, because reading a Python object writes its reference count.
    """

    def __init__(self, lst: list) -> None:
        chunks = [np.frombuffer(pickle.dumps(x, protocol=-1), dtype=np.uint8) for x in lst]
        ends = np.cumsum([len(chunk) for chunk in chunks], dtype=np.int64)
        self._ends = torch.from_numpy(ends)
        self._bytes = torch.from_numpy(
            np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.uint8)
        )
        logger.info("Serialized %d records into %.2f MiB", len(lst), self._bytes.numel() / 1024**2)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, idx: int) -> Any:
        count = len(self)
        if not -count <= idx < count:
            raise IndexError(f"index {idx} is out of range for {count} records")
        idx %= count
        start = 0 if idx == 0 else int(self._ends[idx - 1])
        return pickle.loads(memoryview(self._bytes[start : int(self._ends[idx])].numpy()))


_default_serialize: Callable[[list], Any] = _SerializedList


@contextlib.contextmanager
def set_default_dataset_from_list_serialize_method(new: Callable[[list], Any]) -> Iterator[None]:
    """While active, ``DatasetFromList(..., serialize=True)`` stores its list through ``new``."""
    global _default_serialize
    previous, _default_serialize = _default_serialize, new
    try:
        yield
    finally:
        _default_serialize = previous


class DatasetFromList(data.Dataset):
    """A list as a map-style data set.

    Args:
        lst: the elements (picklable when ``serialize``).
        copy: hand out deep copies of the elements. Needless with ``serialize``, where each access
            makes a fresh object anyway.
        serialize: keep the elements pickled in one tensor that worker processes share; or a
            function that turns the list into any object with ``len`` and ``[]``.
    """

    def __init__(
        self, lst: list, copy: bool = True, serialize: bool | Callable[[list], Any] = True
    ) -> None:
        self._copy = copy
        if not isinstance(serialize, bool):
            self._lst = serialize(lst)
            self._copy = False
        elif serialize:
            self._lst = _default_serialize(lst)
            self._copy = False
        else:
            self._lst = lst

    def __len__(self) -> int:
        return len(self._lst)

    def __getitem__(self, idx: int) -> Any:
        return deepcopy(self._lst[idx]) if self._copy else self._lst[idx]


class MapDataset(data.Dataset):
    """Apply a function to each element.

    A function that returns None for an element (nothing left to learn from, say) makes a
    map-style data set try another element, chosen at random among those that have not failed;
    an iterable one skips the element.

    Args:
        dataset: map-style or iterable; decides which of the two this is.
        map_func: the function; lambdas and local functions reach worker processes as well.
    """

    def __new__(cls, dataset: data.Dataset, map_func: Callable) -> data.Dataset:
        if isinstance(dataset, data.IterableDataset):
            return _MapIterableDataset(dataset, map_func)
        return super().__new__(cls)

    def __init__(self, dataset: data.Dataset, map_func: Callable) -> None:
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)
        self._rng = random.Random(42)
        self._failed: set[int] = set()

    def __getnewargs__(self) -> tuple:
        return self._dataset, self._map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int) -> Any:
        """The mapped element ``idx``, or another one.

        Raises:
            RuntimeError: ``map_func`` returned None for every element.
        """
        idx = int(idx)
        for attempt in itertools.count(1):
            mapped = self._map_func(self._dataset[idx])
            if mapped is not None:
                self._failed.discard(idx)
                return mapped
            self._failed.add(idx)
            if attempt >= 3:
                logger.warning(
                    "The mapping function returned None for record %d, the %d. in a row; "
                    "trying another one",
                    idx,
                    attempt,
                )
            idx = self._draw_another()

    def _draw_another(self) -> int:
        count = len(self)
        if len(self._failed) >= count:
            raise RuntimeError(f"The mapping function returned None for all {count} records")
        while (idx := self._rng.randrange(count)) in self._failed:
            pass
        return idx


class _MapIterableDataset(data.IterableDataset):
    """MapDataset over an iterable data set: elements mapped to None are left out."""

    def __init__(self, dataset: data.IterableDataset, map_func: Callable) -> None:
        self._dataset = dataset
        self._map_func = PicklableWrapper(map_func)

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Any]:
        for mapped in map(self._map_func, self._dataset):
            if mapped is not None:
                yield mapped


class ToIterableDataset(data.IterableDataset):
    """A map-style data set walked in the order of a sampler.

    Every worker of a DataLoader walks the whole sampler (which is cheap) and loads its share:
    the stream of indices is cut into chunks that go round the workers. With chunks of the batch
    size the DataLoader hands back the batches a single process would have made.

    Args:
        dataset: map-style.
        sampler: any iterable of indices; all workers must see the same stream.
        shard_sampler: False if ``sampler`` already differs between workers.
        shard_chunk_size: length of a chunk.
    """

    def __init__(
        self,
        dataset: data.Dataset,
        sampler: Iterable[int],
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ) -> None:
        if isinstance(dataset, data.IterableDataset):
            raise AssertionError("ToIterableDataset needs a map-style dataset, got an iterable one")
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __iter__(self) -> Iterator[Any]:
        indices: Iterable[int] = self.sampler
        if self.shard_sampler:
            indices = _indices_of_this_worker(indices, self.shard_chunk_size)
        for idx in indices:
            yield self.dataset[idx]

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]


def _indices_of_this_worker(indices: Iterable[int], chunk_size: int) -> Iterator[int]:
    worker = data.get_worker_info()
    if worker is None or worker.num_workers == 1:
        yield from indices
        return
    for position, idx in enumerate(indices):
        if (position // chunk_size) % worker.num_workers == worker.id:
            yield idx


class AspectRatioGroupedDataset(data.IterableDataset):
    """Batches of images that are all wide, or all not: less padding.

    Elements wait in one of two buckets (width > height, or not) until it holds a batch; batches
    therefore come in nearly the order of the stream. What is left in the buckets when a finite
    stream ends is dropped.

    Args:
        dataset: iterable of dicts with keys ``width`` and ``height``.
        batch_size: length of the lists it yields.
    """

    def __init__(self, dataset: Iterable[dict], batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[dict]]:
        buckets: tuple[list[dict], list[dict]] = ([], [])
        for element in self.dataset:
            bucket = buckets[element["width"] > element["height"]]
            bucket.append(element)
            if len(bucket) == self.batch_size:
                batch = bucket[:]
                # Emptied before the batch is used up, so that its images can be freed.
                bucket.clear()
                yield batch


__getattr__ = missing_getattr(__name__)
