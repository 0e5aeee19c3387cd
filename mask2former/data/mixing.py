"""Training on several sets at once, each with its share."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

from detectron2.utils import comm

from .errors import DataError


class MixedSetsSampler(Sampler):
    """An endless stream of indices into concatenated sets, drawn from each by its weight.

    Every draw chooses a set with probability weight / sum of weights and takes its next image in a
    shuffled order that is renewed when the set is used up; no image of a set is repeated before
    all others of it were seen. The stream is the same in all processes, each takes its share, as
    detectron2's TrainingSampler does.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], *, seed: int) -> None:
        """
        Args:
            sizes: images of each set, in the order in which they are concatenated.
            weights: one positive number a set.
            seed: of the stream, equal in all processes.

        Raises:
            DataError: weights and sets do not match, a weight is not positive, or a set is empty.
        """
        if len(sizes) != len(weights):
            raise DataError(
                f"DATASETS.TRAIN_WEIGHTS has {len(weights)} numbers for {len(sizes)} sets; give "
                "one for each of DATASETS.TRAIN"
            )
        if any(weight <= 0 for weight in weights):
            raise DataError(f"DATASETS.TRAIN_WEIGHTS must be positive, not {list(weights)}")
        if any(size <= 0 for size in sizes):
            raise DataError(f"DATASETS.TRAIN: a set has no usable image (sizes {list(sizes)})")
        self._sizes = list(sizes)
        self._weights = torch.tensor(weights, dtype=torch.float64)
        self._seed = int(seed)

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._stream(), comm.get_rank(), None, comm.get_world_size())

    def _stream(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        starts = [0, *itertools.accumulate(self._sizes)]
        shuffled: list[list[int]] = [[] for _ in self._sizes]
        while True:
            for chosen in torch.multinomial(
                self._weights, 1024, replacement=True, generator=generator
            ).tolist():
                if not shuffled[chosen]:
                    shuffled[chosen] = torch.randperm(
                        self._sizes[chosen], generator=generator
                    ).tolist()
                yield starts[chosen] + shuffled[chosen].pop()
