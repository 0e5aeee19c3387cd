"""Batches whose elements share a group."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from torch.utils.data.sampler import BatchSampler, Sampler

from detectron2._missing import missing_getattr

__all__ = ["GroupedBatchSampler"]


class GroupedBatchSampler(BatchSampler):
    """Walks a sampler and emits a batch as soon as one group has enough elements.

    Args:
        sampler: of indices.
        group_ids: group of each index; batches never mix groups.
        batch_size: length of the batches. Rests of a finite sampler are dropped.
    """

    def __init__(self, sampler: Sampler, group_ids: Sequence[int], batch_size: int) -> None:
        if not isinstance(sampler, Sampler):
            raise ValueError(
                f"sampler should be a torch.utils.data.Sampler, got {type(sampler).__name__}"
            )
        self.sampler = sampler
        self.group_ids = [int(group) for group in group_ids]
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[list[int]]:
        waiting: dict[int, list[int]] = defaultdict(list)
        for idx in self.sampler:
            batch = waiting[self.group_ids[idx]]
            batch.append(idx)
            if len(batch) == self.batch_size:
                yield batch[:]
                batch.clear()

    def __len__(self) -> int:
        raise TypeError("the number of batches depends on how the groups mix")


__getattr__ = missing_getattr(__name__)
