"""Random-dot stereograms: noise to either eye, a digit to both."""

from typing import Any

import numpy as np
import pytest
import torch
from batches import by_index, evaluated, joined, ridge, training
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.data import StereogramDataModule
from critical_periods.data.digits import read_digits
from critical_periods.data.stereograms import stereogram
from critical_periods.deficits import Dissociation


def ready(**settings: Any) -> StereogramDataModule:
    data = StereogramDataModule(**settings)
    data.setup()
    return data


# One pair of views.


@pytest.mark.parametrize("disparity", [1, 2, 5])
def test_a_stereogram_equals_a_plain_loop(disparity):
    draws = torch.Generator().manual_seed(disparity)
    shapes = torch.rand(20, 4, 7, generator=draws) < 0.5
    scene = torch.randn(20, 4, 7 + disparity, generator=draws)
    fresh = torch.randn(20, 4, 7, generator=draws)
    left, right = stereogram(shapes, scene, fresh).flatten(2).view(20, 2, 4, 7).unbind(1)
    for sample, y, x in np.ndindex(20, 4, 7):
        assert left[sample, y, x] == scene[sample, y, x]
        expected = scene[sample, y, x]
        if shapes[sample, y, x]:
            expected = scene[sample, y, x + disparity]
        elif x >= disparity and shapes[sample, y, x - disparity]:
            expected = fresh[sample, y, x]
        assert right[sample, y, x] == expected


@pytest.mark.parametrize(("size", "disparity"), [(8, 1), (16, 3), (32, 31)])
def test_no_dot_is_seen_twice_by_one_eye(size, disparity):
    """What the proof rests on, for every shape that there is: each dot here has its own number."""
    shapes = torch.cat([images.pixels[:, 0].bool() for images in ready(size=size).load()])
    columns = 2 * size + disparity
    numbers = torch.arange(size * columns).view(1, size, columns).expand(len(shapes), -1, -1)
    scene, fresh = numbers.split([size + disparity, size], dim=2)
    for view in stereogram(shapes, scene, fresh).flatten(2).unbind(1):
        assert (view.sort(dim=1).values.diff(dim=1) > 0).all()


# Either view alone: noise.


def excess(view: Tensor) -> list[float]:
    """By how many standard errors pixels' means, and correlations of pairs, miss those of noise.

    Of dots of -1 and 1, [N, P]: sums over pixels, and over pairs of pixels, of squares that are
    chi-square with one degree of freedom each if all dots are independent.
    """
    number, pixels = view.shape
    means = view.mean(0).square().mul(number)
    correlations = (view.T @ view / number).square().mul(number)
    pairs = correlations[torch.ones(pixels, pixels).triu(1).bool()]
    return [((each.mean() - 1) * (len(each) / 2) ** 0.5).item() for each in (means, pairs)]


def drawn(epochs: int, **settings: Any) -> tuple[Tensor, Tensor]:
    """Views [N, 2, P] and targets of some epochs."""
    data = ready(batch_size=1000, **settings)
    batch = joined([training(data, epoch) for epoch in range(epochs)])
    return batch.views.flatten(2), batch.target


@pytest.mark.parametrize("disparity", [1, 3])
def test_each_view_alone_is_independent_dots_in_every_class(disparity):
    views, target = drawn(8, size=16, disparity=disparity)
    assert views.unique().tolist() == [-1.0, 1.0]
    for label in range(10):
        for view in views[target == label].unbind(1):
            assert max(map(abs, excess(view))) < 5, label


def test_the_check_would_see_a_shape_that_left_its_old_place_uncovered():
    shapes, target = ready(size=16).load()[0]
    shape = shapes[target == 0, 0].bool().repeat(8, 1, 1)
    scene = torch.rand(len(shape), 16, 17, generator=torch.Generator().manual_seed(0)) < 0.5
    scene = scene.float() * 2 - 1
    right = stereogram(shape, scene, fresh=scene[..., :16])[:, 1].flatten(1)
    assert excess(right)[1] > 20


# Both views together.


@pytest.mark.parametrize("disparity", [1, 2, 4])
def test_views_agree_on_the_ground_and_by_chance_at_the_shape(disparity):
    data = ready(disparity=disparity)
    batch = training(data)
    left, right = batch.views[:, :, 0].unbind(1)
    shape = data.load()[0].pixels[batch.index, 0].bool()
    uncovered = torch.nn.functional.pad(shape, (disparity, 0))[..., :32] & ~shape
    ground = ~shape & ~uncovered
    assert (left == right)[ground].all()
    for part in (shape, uncovered):
        agreement = (left == right)[part].double()
        assert (agreement.mean() - 0.5).abs() < 4 * 0.5 / len(agreement) ** 0.5
    # The shape's dots are found again, the disparity away.
    shifted = torch.nn.functional.pad(left, (0, disparity))[..., disparity:]
    inside = shape.clone()
    inside[..., 32 - disparity :] = False
    assert (shifted == right)[inside].all()


def test_a_linear_reader_of_products_needs_both_eyes():
    """Ridge regression on the products of dots d columns apart: of both views, of either one."""
    data = ready(size=16)
    train = joined([training(data, epoch) for epoch in range(10)])
    test = evaluated(data)

    def accuracy(a: int, b: int, shift: int) -> float:
        def products(views: Tensor) -> Tensor:
            return (views[:, a] * views[:, b].roll(-shift, dims=-1)).flatten(1)

        return ridge(train, test, products, 10)

    assert accuracy(0, 1, 0) > 0.7
    error = (0.1 * 0.9 / 4000) ** 0.5
    for view in (0, 1):
        assert abs(accuracy(view, view, 1) - 0.1) < 4 * error


def test_dissociated_views_are_independent():
    data = ready(size=16, batch_size=1000)
    data.deficits.fill([Dissociation(p=0.5, views=[1])])
    batch = joined([training(data, epoch) for epoch in range(4)])
    agreement = batch.views.flatten(2).prod(1)
    for label in range(10):
        assert max(map(abs, excess(agreement[batch.target == label]))) < 5
    assert batch.target_view.unique().tolist() == [0, 1]


# What the samples depend on.


def test_no_two_samples_share_their_dots():
    views = by_index(training(ready(size=16)))[:, 0].flatten(1)
    alike = (views @ views.T / 256).fill_diagonal_(0)
    assert alike.abs().max() < 6 / 16


def test_the_test_split_is_of_all_test_digits_and_balanced():
    data = ready()
    train, test = data.load()
    assert train.pixels.shape == (1000, 1, 32, 32) and test.pixels.shape == (4000, 1, 32, 32)
    assert test.target.bincount().tolist() == [400] * 10
    original = data._shapes(read_digits()[1])
    assert torch.equal(original.target.bincount(minlength=10).gt(66), torch.ones(10).bool())
    for label in range(10):
        of_class = original.pixels[original.target == label].flatten(1)
        shown = test.pixels[test.target == label].flatten(1)
        counts = (of_class[:, None] == shown).all(-1).sum(1)
        assert counts.min() >= 4
    # Shapes are neither empty nor everything.
    share = torch.cat([train.pixels, test.pixels]).double().mean(dim=(1, 2, 3))
    assert share.min() > 0.1 and share.max() < 0.7


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"size": 7}, "size=7 of the stereograms must be at least 8 pixels"),
        ({"disparity": -1}, "disparity=-1 of the stereograms"),
        ({"disparity": 0}, "disparity=0 of the stereograms must lie between 1 and 31"),
        ({"disparity": 16, "size": 16}, "disparity=16 .* between 1 and 15 pixels, within .*=16"),
    ],
)
def test_settings_that_do_not_fit(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        ready(**settings)
