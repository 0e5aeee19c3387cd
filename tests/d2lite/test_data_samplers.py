"""Samplers: seeded order, sharing between ranks, repetition."""

import itertools

import pytest
import torch

from detectron2.data.samplers import (
    GroupedBatchSampler,
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm


def first(sampler, count, start=0):
    return list(itertools.islice(iter(sampler), start, start + count))


def on_rank(monkeypatch, rank, world_size, make):
    with monkeypatch.context() as patch:
        patch.setattr(comm, "get_rank", lambda: rank)
        patch.setattr(comm, "get_world_size", lambda: world_size)
        return make()


def test_training_order_is_detectron2s():
    assert first(TrainingSampler(5, seed=0), 10) == [4, 0, 1, 3, 2, 3, 4, 0, 1, 2]


def test_each_epoch_holds_every_index_once():
    order = first(TrainingSampler(7, seed=3), 21)
    assert all(sorted(order[i : i + 7]) == list(range(7)) for i in (0, 7, 14))


def test_without_shuffling_the_order_is_natural():
    assert first(TrainingSampler(3, shuffle=False), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_a_sampler_starts_over_for_every_iterator():
    sampler = TrainingSampler(5, seed=1)
    assert first(sampler, 9) == first(sampler, 9)


@pytest.mark.parametrize("seed", [0, -1, 2**33])
def test_two_ranks_share_one_stream(monkeypatch, seed):
    whole = first(TrainingSampler(5, seed=seed), 12)
    shards = [
        on_rank(monkeypatch, rank, 2, lambda: TrainingSampler(5, seed=seed)) for rank in (0, 1)
    ]
    assert first(shards[0], 6) == whole[0::2]
    assert first(shards[1], 6) == whole[1::2]


@pytest.mark.parametrize("size", [0, -1, 2.0])
def test_a_wrong_size_is_refused(size):
    with pytest.raises((TypeError, ValueError)):
        TrainingSampler(size)


@pytest.mark.parametrize(("size", "world_size"), [(7, 2), (2, 2), (8, 3), (1, 2), (5, 4)])
def test_inference_shards_are_contiguous_and_complete(monkeypatch, size, world_size):
    shards = [
        list(on_rank(monkeypatch, rank, world_size, lambda: InferenceSampler(size)))
        for rank in range(world_size)
    ]
    assert list(itertools.chain(*shards)) == list(range(size))
    lengths = [len(shard) for shard in shards]
    assert lengths == sorted(lengths, reverse=True) and max(lengths) - min(lengths) <= 1


def test_inference_sampler_has_a_length_and_wants_records():
    assert len(InferenceSampler(4)) == 4
    with pytest.raises(AssertionError):
        InferenceSampler(0)


def records(*category_lists):
    return [{"annotations": [{"category_id": c} for c in cats]} for cats in category_lists]


def test_repeat_factors_follow_the_rarest_category():
    dicts = records([0], [0], [0], [0, 1], [])
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, 0.8)
    torch.testing.assert_close(factors, torch.tensor([1.0, 1, 1, 2, 1]))
    linear = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        dicts, 0.8, sqrt=False
    )
    torch.testing.assert_close(linear, torch.tensor([1.0, 1, 1, 4, 1]))


def test_whole_repeat_factors_repeat_exactly():
    sampler = RepeatFactorTrainingSampler(torch.tensor([1.0, 3.0]), seed=0)
    assert sorted(first(sampler, 4)) == [0, 1, 1, 1]


def test_fractions_are_rounded_at_random_per_epoch():
    factors = torch.full((500,), 1.5)
    order = first(RepeatFactorTrainingSampler(factors, shuffle=False, seed=0), 1400)
    # Epochs are in order, so the first starts over where the index falls.
    (start,) = [i for i in range(1, 1400) if order[i] < order[i - 1]][:1]
    assert 700 < start < 800
    assert order[start : start + 600] != order[:600]


def test_repeat_factor_draws_rounding_before_order():
    factors = torch.tensor([1.3, 2.6, 0.5])
    generator = torch.Generator()
    generator.manual_seed(5)
    expected = []
    for _ in range(3):
        times = (factors.trunc() + (torch.rand(3, generator=generator) < factors.frac())).long()
        epoch = torch.arange(3).repeat_interleave(times)
        expected += epoch[torch.randperm(len(epoch), generator=generator)].tolist()
    assert first(RepeatFactorTrainingSampler(factors, seed=5), len(expected)) == expected


def test_a_random_subset_stays_the_same():
    sampler = RandomSubsetTrainingSampler(10, 0.3, seed_shuffle=1, seed_subset=2)
    order = first(sampler, 30)
    assert len(set(order)) == 3
    assert all(len(set(order[i : i + 3])) == 3 for i in range(0, 30, 3))


def test_batches_keep_to_their_group():
    sampler = torch.utils.data.SequentialSampler(range(7))
    groups = [0, 1, 0, 1, 1, 0, 0]
    batches = [*iter(GroupedBatchSampler(sampler, groups, 2))]
    assert batches == [[0, 2], [1, 3], [5, 6]]
    with pytest.raises(ValueError):
        GroupedBatchSampler([1, 2], groups, 2)
