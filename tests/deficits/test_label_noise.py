"""Label noise against its law, and against the targets of dissociation, whose control it is."""

from __future__ import annotations

import pytest
import torch

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.deficits import Dissociation, LabelNoise


def numbered(size: int, classes: int | None = None) -> Batch:
    """Every pixel of sample i is i; its class is i, or i modulo the classes."""
    number = torch.arange(size)
    images = number.view(-1, 1, 1, 1, 1).expand(size, 2, 1, 2, 2).float()
    target = number if classes is None else number % classes
    return Batch(images, target, torch.full((size,), -1), number)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [2, 3, 64])
def test_every_target_is_another_ones_and_each_is_used_once(size):
    batch = numbered(size)
    target = LabelNoise(p=1.0)(batch, seeded()).target
    assert sorted(target.tolist()) == batch.target.tolist()
    assert (target != batch.target).all()


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_as_many_targets_are_another_ones_as_p_says(p):
    size = 20_000
    wrong = (LabelNoise(p)(numbered(size), seeded()).target != torch.arange(size)).double().mean()
    assert wrong == pytest.approx(p, abs=4 * (p * (1 - p) / size) ** 0.5)


def test_all_other_samples_are_equally_likely():
    counts = torch.zeros(4, 4)
    generator = seeded()
    for _ in range(3000):
        counts[torch.arange(4), LabelNoise(1.0)(numbered(4), generator).target] += 1
    expected = torch.full((4, 4), 1000.0).fill_diagonal_(0)
    assert ((counts - expected).abs() < 4 * (3000 * (1 / 3) * (2 / 3)) ** 0.5).all()


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_targets_are_as_noisy_as_under_dissociation(p):
    batch = numbered(30_000, classes=10)
    rates = [
        (deficit(batch, seeded(1)).target == batch.target).double().mean()
        for deficit in (LabelNoise(p), Dissociation(p))
    ]
    # Another sample is of the same class with probability 2999 / 29999.
    right = 1 - p + p * 2999 / 29_999
    error = (right * (1 - right) / 30_000) ** 0.5
    assert rates == pytest.approx([right, right], abs=4 * error)


def test_views_stay_and_stay_together():
    batch = numbered(16)
    noisy = LabelNoise()(batch, seeded())
    assert noisy.views is batch.views
    assert torch.equal(noisy.target_view, batch.target_view)
    assert torch.equal(batch.target, torch.arange(16))


def test_soft_targets_move_whole():
    batch = numbered(16)
    soft = batch._replace(target=torch.eye(16))
    assert torch.equal(
        LabelNoise()(soft, seeded()).target.argmax(1), LabelNoise()(batch, seeded()).target
    )


def test_a_batch_of_one_stays_as_it_is_and_is_refused_before_training():
    batch = numbered(1)
    assert LabelNoise(1.0)(batch, seeded()) is batch
    with pytest.raises(UserError, match=r"LabelNoise .* choose a batch_size of at least 2\."):
        LabelNoise().check(batch)
    LabelNoise().check(numbered(2))


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_p_is_a_probability(p):
    with pytest.raises(UserError, match=r"p=.* of LabelNoise must be a probability"):
        LabelNoise(p)


def test_settings_show():
    assert repr(LabelNoise(0.25)) == "LabelNoise(p=0.25)"
