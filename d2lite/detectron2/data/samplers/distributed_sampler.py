"""Samplers that share one stream of indices between processes.

Training samplers are endless: all ranks draw the same stream from the same seed, and rank r of n
keeps the positions r, r + n, r + 2n, ... The stream depends on the seed alone, so a run that goes
on after k indices per rank gets the rest of it with ``itertools.islice(iter(sampler), k, None)``.
"""

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch.utils.data.sampler import Sampler

from detectron2._missing import missing_getattr
from detectron2.utils import comm

__all__ = [
    "InferenceSampler",
    "RandomSubsetTrainingSampler",
    "RepeatFactorTrainingSampler",
    "TrainingSampler",
]

logger = logging.getLogger(__name__)


class _EndlessSampler(Sampler):
    """Epochs one after the other, dealt out to the ranks."""

    def __init__(self, shuffle: bool, seed: int | None) -> None:
        self._shuffle = shuffle
        # All ranks must agree; None asks rank 0 for a fresh one.
        self._seed = comm.shared_random_seed() if seed is None else int(seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._endless(), self._rank, None, self._world_size)

    def _endless(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            indices = self._epoch(generator)
            if self._shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield from indices.tolist()

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        """Indices of one epoch in order, int64 [N]; may draw from ``generator``."""
        raise NotImplementedError


class TrainingSampler(_EndlessSampler):
    """Endless permutations of ``range(size)``.

    Args:
        size: number of records, > 0.
        shuffle: False walks the records in order.
        seed: of the permutations; None draws one that all ranks share.

    Raises:
        TypeError: ``size`` is not an int.
        ValueError: ``size`` is not positive.
    """

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None) -> None:
        if not isinstance(size, int):
            raise TypeError(f"TrainingSampler(size=) expects an int, got {type(size).__name__}")
        if size <= 0:
            raise ValueError(f"TrainingSampler(size=) expects a positive int, got {size}")
        self._size = size
        super().__init__(shuffle, seed)
        logger.info("Using training sampler with seed %d over %d records", self._seed, size)

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        return torch.arange(self._size)


class RandomSubsetTrainingSampler(_EndlessSampler):
    """Endless permutations of one random part of the records, drawn once.

    Args:
        size: number of records.
        subset_ratio: share of them to use, in (0, 1].
        shuffle: permute in every epoch.
        seed_shuffle: of the permutations; None draws a shared one.
        seed_subset: of the choice of the part; None draws a shared one.
    """

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ) -> None:
        if not 0.0 < subset_ratio <= 1.0 or int(size * subset_ratio) == 0:
            raise AssertionError(
                f"RandomSubsetTrainingSampler: ratio {subset_ratio} of {size} records is no subset "
                "with at least one record (DATALOADER.RANDOM_SUBSET_RATIO)"
            )
        super().__init__(shuffle, seed_shuffle)
        generator = torch.Generator()
        seed = comm.shared_random_seed() if seed_subset is None else int(seed_subset)
        generator.manual_seed(seed)
        self._subset = torch.randperm(size, generator=generator)[: int(size * subset_ratio)]
        logger.info("Using %d of %d records (random subset)", len(self._subset), size)

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        return self._subset


class RepeatFactorTrainingSampler(_EndlessSampler):
    """Shows images with rare categories more often (LVIS, Gupta et al., CVPR 2019, appendix B).

    Args:
        repeat_factors: float [N], how often each record occurs per epoch on average; fractions
            are rounded up or down at random in every epoch.
        shuffle: permute in every epoch.
        seed: None draws one that all ranks share.
    """

    def __init__(
        self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None
    ) -> None:
        super().__init__(shuffle, seed)
        self._whole = torch.trunc(repeat_factors)
        self._fraction = repeat_factors - self._whole

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: list[dict], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """Repeat factor of each record: that of its rarest category.

        A category in the share f of all images has the factor max(1, sqrt(t / f)), or
        max(1, t / f) without ``sqrt``.

        Args:
            dataset_dicts: records with ``annotations``.
            repeat_thresh: t; categories more frequent than that are not repeated.
            sqrt: see above.

        Returns:
            float32 [N], all >= 1.
        """
        present = [{ann["category_id"] for ann in d["annotations"]} for d in dataset_dicts]
        image_count = Counter(itertools.chain.from_iterable(present))
        factor = {}
        for category, count in image_count.items():
            ratio = repeat_thresh * len(dataset_dicts) / count
            factor[category] = max(1.0, math.sqrt(ratio) if sqrt else ratio)
        return torch.tensor(
            [max((factor[c] for c in cats), default=1.0) for cats in present], dtype=torch.float32
        )

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        rounding = torch.rand(len(self._fraction), generator=generator) < self._fraction
        times = (self._whole + rounding).to(torch.int64)
        return torch.repeat_interleave(torch.arange(len(times)), times)


class InferenceSampler(Sampler):
    """Each record exactly once over all ranks, in contiguous parts.

    The first ``size % world_size`` ranks get one record more.

    Args:
        size: number of records, > 0.
    """

    def __init__(self, size: int) -> None:
        if size <= 0:
            raise AssertionError(f"InferenceSampler(size=) expects a positive int, got {size}")
        self._size = size
        rank, world_size = comm.get_rank(), comm.get_world_size()
        share, extra = divmod(size, world_size)
        begin = rank * share + min(rank, extra)
        self._local_indices = range(begin, begin + share + (rank < extra))

    def __iter__(self) -> Iterator[int]:
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)


__getattr__ = missing_getattr(__name__)
