"""Random numbers by name: against plain integers, and as random as they should be."""

import torch

from critical_periods.core.randomness import Stream, fold, generator, global_seed, uniform

MASK = (1 << 64) - 1


def splitmix64(state: int) -> int:
    """The next output of SplitMix64 from a state, as published."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_streams_keep_their_numbers():
    """They are part of the bits of every run; a new one takes a number that is free."""
    ranges = ((1, 8), (11, 17), (31, 37), (50, 55), (60, 64), (70, 71), (2022, 2026))
    numbers = [number for begin, end in ranges for number in range(begin, end)]
    assert [stream.value for stream in Stream] == numbers
    assert [Stream.AUGMENTATION, Stream.DEFICIT, Stream.RAND_AUGMENT] == [1, 3, 16]
    # The one number that occurs twice: in the first place of one key, in the second of the other.
    assert Stream.MATRIX == Stream.MONITORED_PATCHES == 2023


def test_fold_of_one_word_is_splitmix64():
    assert splitmix64(1234567) == 6457827717110365317  # as in other implementations' tests
    for word in (0, 1, 1234567, (1 << 63) + 5):
        assert fold(word) == splitmix64(word) >> 1
    assert fold(-1) == fold(MASK)


def test_fold_tells_words_their_order_and_their_number_apart():
    words = [(), (0,), (0, 0), (1,), (0, 1), (1, 0), (-1,), (0, 0, 0), (2, -1), (-1, 2)]
    assert len({fold(*some) for some in words}) == len(words)
    many = {fold(seed, epoch) for seed in range(100) for epoch in range(100)}
    assert len(many) == 10_000 and all(0 <= value < 1 << 63 for value in many)


def test_uniform_is_splitmix64_of_the_counter():
    index = torch.tensor([0, 1, 77, 49_999, -1])
    actual = uniform(index, 3, 5, 6)
    for row, place in zip(actual, index.tolist(), strict=True):
        for draw in range(3):
            # The name's hash is the stream's start, and each draw has a place in the stream.
            word = splitmix64((place * 3 + draw + fold(5, 6)) & MASK)
            assert row[draw].item() == (word >> 40) / (1 << 24)


def test_uniform_is_the_same_in_any_batch():
    whole = uniform(torch.arange(1000), 4, 1, 2)
    chosen = torch.randperm(1000)[:100]
    assert torch.equal(uniform(chosen, 4, 1, 2), whole[chosen])
    assert torch.equal(uniform(chosen.int(), 4, 1, 2), whole[chosen])
    assert not torch.equal(uniform(torch.arange(1000), 4, 1, 3), whole)


def test_uniform_is_uniform_and_independent():
    count = 50_000
    epochs = torch.cat([uniform(torch.arange(count), 3, 1, 0, epoch) for epoch in range(4)], dim=1)
    assert epochs.min() >= 0 and epochs.max() < 1
    assert ((epochs.mean(0) - 0.5).abs() < 4.5 * (1 / 12 / count) ** 0.5).all()
    bins = (epochs * 20).long()
    for column in bins.T:
        observed = torch.bincount(column, minlength=20)
        chi2 = ((observed - count / 20) ** 2 / (count / 20)).sum()
        assert 3 < chi2 < 55  # 19 degrees of freedom, p about 1e-5 on either side
    neighbours = torch.cat([epochs[:-1], epochs[1:]], dim=1)
    correlations = torch.corrcoef(neighbours.T) - torch.eye(24)
    assert correlations.abs().max() < 5 / count**0.5


def test_generators_of_one_name_draw_alike():
    keys = ((1, 2), (1, 2), (2, 1))
    first, again, other = (torch.rand(5, generator=generator("cpu", *key)) for key in keys)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_global_seed_is_lightnings(monkeypatch):
    assert global_seed() == 0
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert global_seed() == 7
