"""Which samples make up which batch, and going on within an epoch."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import pytest
import torch

from critical_periods.core.errors import UserError
from critical_periods.data.epochs import EpochLoader, EpochSampler


def sampler(count: int = 23, batch_size: int = 4, **settings: Any) -> EpochSampler:
    settings = {"training": True, "seed": 1} | settings
    return EpochSampler(torch.arange(100, 100 + count), batch_size, **settings)


def flat(lists: Iterable[Iterable[Any]]) -> list[Any]:
    return list(chain.from_iterable(lists))


def drawn(sampler: EpochSampler, epoch: int = 0) -> list[list[int]]:
    sampler.set_epoch(epoch)
    return [batch.tolist() for batch in sampler]


def test_an_epoch_is_one_permutation_of_seed_and_epoch():
    orders = {
        (seed, epoch, size): flat(drawn(sampler(batch_size=size, seed=seed), epoch))
        for seed in (0, 1)
        for epoch in (0, 1, 2)
        for size in (4, 7, 100)
    }
    for (seed, epoch, _), order in orders.items():
        assert sorted(order) == list(range(100, 123))
        assert order == orders[seed, epoch, 4]
    assert len({tuple(order) for order in orders.values()}) == 6


def test_the_order_does_not_depend_on_what_was_drawn_before():
    used = sampler()
    for epoch in (0, 5, 2):
        drawn(used, epoch)
        torch.rand(3)
    state = torch.get_rng_state()
    assert drawn(used, 5) == drawn(sampler(), 5)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("count", "world_size"), [(23, 1), (12, 2), (25, 2), (23, 3), (25, 3)])
def test_processes_share_the_global_batches(count, world_size):
    ranks = [
        sampler(count, 12 // world_size, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    whole = drawn(sampler(count, 12), epoch=4)
    parts = [drawn(one, epoch=4) for one in ranks]
    assert [len(one) for one in ranks] == [len(part) for part in parts]
    for number, global_batch in enumerate(whole):
        shares = [part[number] for part in parts if number < len(part)]
        assert len({len(share) for share in shares}) <= 1
        # Samples that cannot be shared equally, fewer than processes, are left out at the end.
        left_over = len(global_batch) % world_size
        assert flat(shares) == global_batch[: len(global_batch) - left_over]
        assert not left_over or number == len(whole) - 1


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_the_size_of_the_last_batch(batch_size, world_size):
    for count in (3, 4, 5, 12, 13, 23, 25):
        settings = {"count": count, "batch_size": batch_size, "world_size": world_size}
        for rank in range(world_size):
            one = sampler(**settings, rank=rank)
            assert one.last_size == len(drawn(one)[-1])


@pytest.mark.parametrize(
    ("count", "batch_size", "world_size"),
    [(7, 3, 1), (6, 1, 2), (7, 1, 2), (11, 1, 3), (12, 2, 3), (13, 3, 3), (5, 50, 2), (9, 2, 2)],
)
def test_evaluation_sees_each_sample_once(count, batch_size, world_size):
    settings = {"training": False, "world_size": world_size}
    parts = [
        drawn(sampler(count, batch_size, rank=rank, **settings), epoch=7)
        for rank in range(world_size)
    ]
    whole = drawn(sampler(count, batch_size * world_size, training=False))
    # Those of one process, wherever the processes' share of a batch is one sample at least.
    assert [flat(shares) for shares in zip(*parts, strict=True)] == whole or batch_size == 1
    assert sorted(flat(flat(parts))) == list(range(100, 100 + count))
    assert len({len(part) for part in parts}) == 1
    sizes = {len(batch) for part in parts for batch in part}
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
    assert max(sizes) <= (2 if batch_size == 1 and count % world_size else batch_size)
    assert len(sampler(count, batch_size, **settings)) == len(parts[0])


def test_evaluation_keeps_its_order():
    evaluation = sampler(10, 4, training=False)
    assert drawn(evaluation, 0) == drawn(evaluation, 3)
    assert flat(drawn(evaluation)) == list(range(100, 110))


@pytest.mark.parametrize(("done", "rank"), [(0, 0), (1, 1), (3, 0), (5, 1), (6, 0)])
def test_resuming_within_an_epoch(done, rank):
    settings = {"count": 22, "batch_size": 2, "rank": rank, "world_size": 2}
    expected = drawn(sampler(**settings), 3)
    first = EpochLoader("train", sampler(**settings))
    first.sampler.set_epoch(3)
    batches = iter(first)
    for _ in range(done):
        next(batches)
    state = first.state_dict()
    second = EpochLoader("train", sampler(**settings))
    second.load_state_dict(state)
    assert second.state_dict() == state
    batches = iter(second)  # Lightning makes it before it sets the epoch
    second.sampler.set_epoch(3)
    rest = list(batches)
    left = list(range(done % 6, 6))
    assert [draw.batch for draw in rest] == left
    assert [draw.index.tolist() for draw in rest] == [expected[number] for number in left]
    # That epoch once more, and the next one, are whole.
    assert drawn(second.sampler, 3) == expected
    assert drawn(second.sampler, 4) == drawn(sampler(**settings), 4)


def test_a_loader_says_what_its_batches_are():
    loader = EpochLoader("train", sampler(10))
    loader.sampler.set_epoch(6)
    assert [(d.part, d.epoch, d.batch, len(d.index)) for d in loader] == [
        ("train", 6, 0, 4), ("train", 6, 1, 4), ("train", 6, 2, 2),
    ]  # fmt: skip
    evaluation = EpochLoader("val", sampler(10, training=False))
    assert {draw.epoch for draw in evaluation} == {-1}


def test_too_few_samples():
    with pytest.raises(UserError, match="batch_size=0 must be at least 1"):
        sampler(batch_size=0)
    with pytest.raises(UserError, match="2 samples cannot be shared by 3 processes"):
        sampler(2, world_size=3)
