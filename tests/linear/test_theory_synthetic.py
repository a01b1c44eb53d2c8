"""Synthetic RSV: closed forms against samples, and against the metric on networks of given weights.

Estimates must lie within four standard errors of the closed form.
"""

import math

import numpy as np
import pytest
import torch
from numpy.random import default_rng as rng
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.linear import (
    FIGURE_3,
    BetaWeights,
    DeepLinear,
    conditional_variances,
    marginal_variances,
    relative_variances,
    rsv_cdf,
    sample_views,
    views_covariance,
)
from critical_periods.metrics import RelativeSourceVariance
from critical_periods.metrics.functional import relative_source_variance

EQUAL = (1.0, (1.0, 1.0))
UNEQUAL = (0.7, (0.2, 2.5))
NOISES = [EQUAL, UNEQUAL, (0.0, (1.0, 3.0)), (5.0, (0.01, 0.3))]
WEIGHTS = np.stack([np.linspace(0, 1, 9), np.linspace(1, 0, 9)])


def both(weights: np.ndarray, covariance: np.ndarray) -> list[np.ndarray]:
    variances = (conditional_variances, marginal_variances)
    return [one(weights, covariance) for one in variances]


def any_covariance(views: int, seed: int) -> np.ndarray:
    root = rng(seed).standard_normal((views, views + 1))
    return root @ root.T


# Closed forms.


@pytest.mark.parametrize(("common", "noises"), NOISES)
def test_two_views_are_the_papers_derivation(common, noises):
    w, (noise_a, noise_b) = WEIGHTS[0], noises
    a_given_b = common + noise_a - common**2 / (common + noise_b)
    b_given_a = common + noise_b - common**2 / (common + noise_a)
    conditional = conditional_variances(WEIGHTS, views_covariance(common, noises))
    np.testing.assert_allclose(conditional, [w**2 * a_given_b, (1 - w) ** 2 * b_given_a], rtol=1e-9)
    if noise_a == noise_b:
        expected = (w**2 - (1 - w) ** 2) / (w**2 + (1 - w) ** 2)
        np.testing.assert_allclose(relative_variances(conditional), expected, atol=1e-14)


@pytest.mark.parametrize(
    "covariance",
    [views_covariance(*noise) for noise in NOISES] + [any_covariance(2, s) for s in range(3)],
)
def test_of_two_views_conditional_and_marginal_rsv_agree_at_any_covariance(covariance):
    conditional, marginal = both(WEIGHTS, covariance)
    assert (conditional[0, 1:] < marginal[0, 1:]).all() == (abs(covariance[0, 1]) > 0.05)
    np.testing.assert_allclose(*map(relative_variances, (conditional, marginal)), atol=1e-9)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_conditional_variance_is_one_over_the_precision(views):
    covariance, weights = any_covariance(views, views), rng(9).standard_normal((views, 5))
    precision = np.diag(np.linalg.inv(covariance))
    expected = weights**2 / precision[:, None]
    np.testing.assert_allclose(conditional_variances(weights, covariance), expected, rtol=1e-8)


def test_of_three_views_they_agree_only_where_the_views_are_independent_or_alike():
    weights = rng(0).uniform(0.2, 1, (3, 6))

    def apart(covariance: np.ndarray) -> float:
        shares = [relative_variances(variances) for variances in both(weights, covariance)]
        np.testing.assert_allclose(np.sum(shares, axis=1), 1)
        return float(abs(shares[0] - shares[1]).max())

    assert apart(np.diag([0.5, 1.0, 4.0])) < 1e-12
    assert apart(views_covariance(2.0, [0.3, 0.3, 0.3])) < 1e-12
    assert apart(views_covariance(2.0, [0.1, 0.3, 1.0])) > 0.1


def test_views_that_say_the_same_have_no_variance_of_their_own():
    conditional, marginal = both(WEIGHTS, views_covariance(1.0, [0.0, 0.0]))
    assert (conditional == 0).all() and np.isnan(relative_variances(conditional)).all()
    rsv = relative_variances(marginal)
    np.testing.assert_allclose(rsv[[0, 4, 8]], [-1, 0, 1], atol=1e-14)


@pytest.mark.parametrize("views", [2, 3])
def test_relative_variances_are_the_metrics_own(views):
    variances = rng(0).uniform(0, 2, (views, 4, 5))
    variances[:, 0, 0] = 0
    expected = relative_source_variance(torch.from_numpy(variances)).numpy()
    np.testing.assert_allclose(relative_variances(variances), expected, atol=1e-15)
    assert np.isnan(expected[..., 0, 0]).all()


# Samples.


@pytest.mark.parametrize(("common", "noises"), [*NOISES, (1.0, (0.2, 0.5, 2.0))])
def test_samples_have_the_covariance_and_the_conditional_variance(common, noises):
    count, covariance = 40_000, views_covariance(common, noises)
    x = sample_views(common, noises, count, rng(0))
    error = np.sqrt((covariance**2 + np.outer(*[np.diag(covariance)] * 2)) / count)
    assert (abs(x @ x.T / count - covariance) < 4 * error).all()

    # What the other views leave of a unit is what regression on them cannot explain.
    weights = rng(1).uniform(0.1, 1, len(noises))
    z = weights @ x
    expected = conditional_variances(weights, covariance)
    for view in range(len(noises)):
        others = np.delete(x, view, axis=0)
        slopes = np.linalg.lstsq(others.T, z, rcond=None)[0]
        left = np.mean((z - slopes @ others) ** 2)
        assert abs(left - expected[view]) < 4 * expected[view] * math.sqrt(2 / count)


@pytest.mark.parametrize(("common", "noises"), [EQUAL, UNEQUAL])
@pytest.mark.parametrize("distribution", [*FIGURE_3, BetaWeights(2, 1)], ids=str)
def test_histograms_of_samples_follow_the_closed_distribution(distribution, common, noises):
    units, covariance, edges = 20_000, views_covariance(common, noises), np.linspace(-1, 1, 41)
    weights = distribution.sample(units, rng(3))
    np.testing.assert_array_equal(weights.sum(0), 1)
    rsv = relative_variances(marginal_variances(weights, covariance))
    counts = np.histogram(rsv, edges)[0]
    share = np.diff(rsv_cdf(edges, distribution, covariance))
    assert share.sum() == pytest.approx(1)
    assert (share >= 0).all()
    # One unit more: the normal bound is too tight where less than one is expected.
    assert (abs(counts - units * share) <= 4 * np.sqrt(units * share * (1 - share)) + 1).all()


def test_half_of_the_units_are_reversed():
    plain = BetaWeights(1, 20, reversed_half=False).sample(2_001, rng(4))
    both = BetaWeights(1, 20).sample(2_001, rng(4))
    np.testing.assert_array_equal(both[:, :1001], plain[:, :1001])
    np.testing.assert_array_equal(both[0, 1001:], plain[1, 1001:])
    mean = 1 / 21
    error = math.sqrt(1 * 20 / (21**2 * 22) / 1_000)
    assert abs(plain[0].mean() - mean) < 4 * error
    assert FIGURE_3[0].reversed_half is False
    assert [(one.alpha, one.beta) for one in FIGURE_3] == [(10, 20), (1, 20), (20, 20), (30, 20)]


def test_the_distribution_is_symmetric_where_the_views_are_alike():
    edges = np.linspace(-1, 1, 81)
    for distribution in FIGURE_3[1:]:
        cdf = rsv_cdf(edges, distribution, views_covariance(*EQUAL))
        np.testing.assert_allclose(cdf + cdf[::-1], 1, atol=1e-12)


# Networks that were built to have given weights.


def built(weights: np.ndarray) -> DeepLinear:
    """Two layers with a wider one between them, whose product is z = sum_j w_j x_j."""
    views = len(weights)
    first = rng(7).standard_normal((views + 4, views))
    network = DeepLinear([first, weights.T @ np.linalg.pinv(first)])
    np.testing.assert_allclose(network.weights.detach(), weights.T, atol=1e-12)
    return network


def measured(network: DeepLinear, pools: np.ndarray) -> Tensor:
    """The metric's RSV, of three fixed samples: [3, units], or shares [V, 3, units]."""
    fixed = [torch.full((3, 1), value, dtype=torch.float64) for value in range(len(pools))]
    metric = RelativeSourceVariance(lambda *views: network(torch.cat(views, 1)), fixed)
    for batch in torch.from_numpy(pools).unsqueeze(-1).split(500, dim=1):
        metric.update(*batch)
    rsv = metric.compute()
    assert isinstance(rsv, Tensor)
    return rsv


@pytest.mark.parametrize("views", [2, 3])
def test_measured_rsv_is_exact_where_the_draws_have_exact_variances(views):
    weights = WEIGHTS if views == 2 else rng(5).dirichlet([1, 1, 1], 7).T
    covariance = any_covariance(views, 3)
    pools = rng(6).standard_normal((views, 1_000))
    pools = (pools - pools.mean(1, keepdims=True)) / pools.std(1, keepdims=True)
    pools *= np.sqrt(np.diag(covariance))[:, None]
    rsv = measured(built(weights), pools)
    expected = relative_variances(marginal_variances(weights, covariance))
    for of_fixed in rsv.unbind(-2):
        np.testing.assert_allclose(of_fixed.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "common", "noises"),
    [(WEIGHTS, *noise) for noise in NOISES]
    + [(one.sample(400, rng(1)), *EQUAL) for one in FIGURE_3],
)
def test_measured_rsv_of_two_views_is_within_four_standard_errors(weights, common, noises):
    draws, covariance = 2_000, views_covariance(common, noises)
    rsv = measured(built(weights), sample_views(common, noises, draws, rng(8)))
    # By its conditional form: that the two agree is what is tested too.
    variances = conditional_variances(weights, covariance)
    share = variances / variances.sum(0)
    error = 2 * share.prod(0) * math.sqrt(4 / draws)  # draws of common part err together, less
    assert (abs(rsv.numpy() - relative_variances(variances)) <= 4 * error + 1e-9).all()


@pytest.mark.parametrize(("common", "noises"), [(0.0, (0.5, 1.0, 2.0)), (1.0, (0.1, 0.5, 2.0))])
def test_measured_shares_of_three_views_are_within_four_standard_errors(common, noises):
    draws, covariance = 2_000, views_covariance(common, noises)
    weights = rng(5).dirichlet([1, 1, 1], 7).T
    # Draws of their own for each view; the marginals are those of the correlated views.
    pools = np.stack([sample_views(common, noises, draws, rng(v))[v] for v in range(3)])
    shares = measured(built(weights), pools).numpy()
    other, expected = map(relative_variances, both(weights, covariance))
    squares = (expected**2).sum(0) - expected**2 + (1 - expected) ** 2
    error = expected * np.sqrt(squares * 2 / draws)
    assert (abs(shares - expected[:, None]) <= 4 * error[:, None]).all()
    assert not common or abs(shares - other[:, None]).max() > 0.1


# Messages.


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: views_covariance(-1.0, [1, 1]), "common is -1.0"),
        (lambda: views_covariance(1.0, [1, math.nan]), "variances from 0"),
        (lambda: sample_views(1.0, [1], 5, rng(0)), "two views or more"),
        (lambda: marginal_variances([1, 1, 1], np.eye(2)), r"shape \[3\], covariance is of 2"),
        (lambda: conditional_variances([1, 1], np.ones(2)), r"covariance has shape \[2\]"),
        (lambda: conditional_variances([1, 1], [[1, 0.5], [0, 1]]), "is not symmetric"),
        (lambda: conditional_variances([1, 1], np.ones((2, 3))), "is not symmetric"),
        (lambda: conditional_variances([1, 1], [[1, 2], [2, 1]]), "eigenvalue -1"),
        (lambda: relative_variances([[1.0]]), "two views or more"),
        (lambda: BetaWeights(0, 1), "alpha is 0, beta 1"),
        (lambda: BetaWeights(1, -2), "must be positive"),
        (lambda: rsv_cdf([1.5], BetaWeights(1, 1), np.eye(2)), "from -1 to 1"),
        (lambda: rsv_cdf([0.5], BetaWeights(1, 1), [[1, 0], [0, 0]]), "both must be positive"),
        (lambda: rsv_cdf([0.5], BetaWeights(1, 1), np.eye(3)), "covariance is of 3 views"),
    ],
)
def test_messages(call, message):
    with pytest.raises(UserError, match=message):
        call()
