"""Mixup and CutMix: one partner, one share and one rectangle for all views of a sample."""

import numpy as np
import pytest
import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.data.video.mixing import mix

SIZE, VIEWS, CHANNELS, HEIGHT, WIDTH = 12, 2, 3, 10, 14


def batch(size: int = SIZE, side: tuple[int, int] = (HEIGHT, WIDTH)) -> Batch:
    """Noise, each sample of a class of its own."""
    draws = torch.Generator().manual_seed(0)
    views = torch.rand(size, VIEWS, CHANNELS, *side, generator=draws, dtype=torch.float64)
    return Batch(views, torch.arange(size), torch.full((size,), -1), torch.arange(size) + 100)


def partner_and_share(target: Tensor, sample: int) -> tuple[int, float]:
    """What a soft target says: whom a sample was mixed with, and what it kept."""
    others = [n for n in range(len(target)) if n != sample and target[n] > 0]
    assert len(others) <= 1 and target.sum() == pytest.approx(1)
    return (others or [sample])[0], float(target[sample])


def is_cut(kept: Tensor) -> bool:
    """Whether pixels [H, W] that are kept are all but a rectangle."""
    rows, columns = (~kept).any(1), (~kept).any(0)
    assert torch.equal(~kept, rows[:, None] & columns[None])
    # Nothing in between: where it begins and ends, if it is there at all.
    return all(int(side.int().diff().abs().sum()) <= 2 for side in (rows, columns))


@pytest.mark.parametrize("word", range(4))
def test_mixup_equals_a_plain_loop(word: int):
    clean = batch()
    mixed = mix(clean, SIZE, 0.8, 0.0, 7, word)
    partners = []
    for i in range(SIZE):
        j, share = partner_and_share(mixed.target[i], i)
        partners.append(j)
        for v, c in np.ndindex(VIEWS, CHANNELS):
            expected = share * clean.views[i, v, c] + (1 - share) * clean.views[j, v, c]
            torch.testing.assert_close(mixed.views[i, v, c], expected)
    assert sorted(partners) == list(range(SIZE))
    assert torch.equal(mixed.index, clean.index)
    assert torch.equal(mixed.target_view, clean.target_view)


@pytest.mark.parametrize("word", range(4))
def test_cutmix_puts_one_rectangle_of_the_partner_into_all_views(word: int):
    clean = batch()
    mixed = mix(clean, SIZE, 0.0, 1.0, 7, word)
    for i in range(SIZE):
        j, share = partner_and_share(mixed.target[i], i)
        kept = (mixed.views[i] == clean.views[i]).all(dim=(0, 1))
        assert torch.equal(mixed.views[i][..., kept], clean.views[i][..., kept])
        assert torch.equal(mixed.views[i][..., ~kept], clean.views[j][..., ~kept])
        if j != i:
            # The label says what can be seen: a share of the pixels.
            assert share == pytest.approx(int(kept.sum()) / (HEIGHT * WIDTH))
            assert is_cut(kept)


def test_with_both_each_is_used_for_half_of_the_samples():
    clean = batch()
    cut = total = 0
    for word in range(120):
        mixed = mix(clean, SIZE, 0.8, 1.0, 1, word)
        for i in range(SIZE):
            j, _ = partner_and_share(mixed.target[i], i)
            if j != i:
                same = (mixed.views[i] == clean.views[i]) | (mixed.views[i] == clean.views[j])
                cut, total = cut + bool(same.all()), total + 1
    # Where a rectangle is empty, nothing tells whose it was: those are left out above.
    assert cut / total == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.8, 0.0), (0.3, 0.0), (0.0, 1.0)])
def test_shares_have_the_law_of_beta(mixup: float, cutmix: float):
    """Kept shares have mean 1/2 and variance 1 / (4 (2a + 1)); a rectangle's border cuts some."""
    clean = batch(400, (16, 16))
    kept = []
    for word in range(5):
        target = mix(clean, 400, mixup, cutmix, 2, word).target
        # Who is his own partner keeps all.
        kept += [target[i, i] for i in range(400) if target[i, i] < 1 or cutmix]
    shares = torch.stack(kept)
    if mixup:
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * mixup + 1)), rel=0.08)
        return
    # A side of s, centred anywhere in [0, 1], covers s - s²/4 on average; the area is its square
    # and s² uniform: the mean of (s - s²/4)² is 1/2 - 1/5 + 1/48.
    assert 1 - shares.mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.02)


def test_nothing_to_mix():
    clean = batch()
    assert mix(clean, SIZE, 0.0, 0.0, 3) is clean
    alone = mix(batch(1), 1, 0.8, 1.0, 3)
    torch.testing.assert_close(alone.views, batch(1).views)
    assert alone.target.tolist() == [[1.0]]


def test_draws_depend_on_their_words_alone():
    torch.manual_seed(0)
    first = mix(batch(), SIZE, 0.8, 1.0, 5, 2)
    torch.manual_seed(1)
    again, other = mix(batch(), SIZE, 0.8, 1.0, 5, 2), mix(batch(), SIZE, 0.8, 1.0, 5, 3)
    assert torch.equal(first.views, again.views) and torch.equal(first.target, again.target)
    assert not torch.equal(first.target, other.target)


def test_a_soft_target_is_as_long_as_there_are_classes():
    target = mix(batch(), 400, 0.8, 0.0, 0).target
    assert target.shape == (SIZE, 400) and target.dtype == torch.float64
    torch.testing.assert_close(target.sum(1), torch.ones(SIZE, dtype=torch.float64))
