"""Subset simulation and marginals, against closed forms, loops and scipy's distributions."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from critical_periods.core.errors import UserError
from critical_periods.reliability import (
    Exponential,
    Independent,
    LogNormal,
    Normal,
    Uniform,
    subset_simulation,
)
from critical_periods.reliability.subset import _squared_cov

sys.path.append(str(Path(__file__).parents[2] / "experiments" / "benchmarks"))
from limit_states import PROBLEMS, linear, oscillator


@pytest.mark.parametrize("problem", PROBLEMS[:-1], ids=lambda one: f"{one.name} {one.dimension}")
def test_references_are_what_an_independent_computation_gives(problem):
    assert problem.check() == pytest.approx(problem.reference, rel=4e-3)


@pytest.mark.parametrize("problem", [linear(2), linear(100), oscillator()], ids=lambda p: p.name)
def test_repeats_have_the_right_mean_and_the_scatter_that_each_says(problem):
    repeats, samples = 30, 1000
    found = [
        subset_simulation(problem.limit_state, problem.dimension, samples, seed=seed)
        for seed in range(repeats)
    ]
    probabilities = np.array([one.probability for one in found])
    theory = np.mean([one.cov for one in found])
    mean, scatter = probabilities.mean(), probabilities.std(ddof=1) / probabilities.mean()
    assert mean == pytest.approx(problem.reference, rel=3 * theory / repeats**0.5)
    assert 0.5 < scatter / theory < 1.5


def test_the_squared_cov_is_the_sum_of_au_and_beck():
    length, chains = 10, 7
    fails = np.random.default_rng(0).random((length, chains)) < 0.3
    fails[5] = fails[4]
    n, p = fails.size, fails.mean()

    def covariance(lag: int) -> float:
        pairs = [
            float(fails[step, chain]) * float(fails[step + lag, chain])
            for chain in range(chains)
            for step in range(length - lag)
        ]
        return sum(pairs) / (n - lag * chains) - p**2

    gamma = 2 * sum(
        (1 - lag * chains / n) * covariance(lag) / covariance(0) for lag in range(1, length)
    )
    expected = (1 - p) / (p * n) * (1 + gamma)
    assert _squared_cov(fails.ravel(), length) == pytest.approx(expected, rel=1e-12)
    assert _squared_cov(fails.ravel(), 1) == pytest.approx((1 - p) / (p * n), rel=1e-12)


def test_levels_are_nested_and_one_level_is_a_monte_carlo_simulation():
    found = subset_simulation(linear(3).limit_state, 3, 500, seed=1)
    for values, bound in zip(found.values[1:], found.thresholds, strict=False):
        assert (values <= bound).all()
    assert found.thresholds[-1] == 0 and len(found.thresholds) == len(found.populations) > 2
    assert found.probability == pytest.approx(np.prod(found.level_probabilities))
    levels = len(found.populations)
    calls: list[int] = []

    def counted(u: np.ndarray) -> np.ndarray:
        calls.append(len(u))
        return linear(3).limit_state(u)

    again = subset_simulation(counted, 3, 500, seed=1)
    assert again.probability == found.probability and sum(calls) == found.evaluations
    assert found.evaluations == 500 + (levels - 1) * 450
    assert subset_simulation(linear(3).limit_state, 3, 500, seed=2).probability != found.probability
    one = subset_simulation(linear(3, 0.5).limit_state, 3, 500)
    share = (linear(3, 0.5).limit_state(one.populations[0]) <= 0).mean()
    assert len(one.populations) == 1 and one.probability == share
    assert one.cov == pytest.approx(((1 - share) / (share * 500)) ** 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dimension": 0}, "dimension is 0"),
        ({"p0": 0.3}, "p0 is 0.3; give one over a whole number"),
        ({"samples": 105}, "samples is 105; give a multiple of 1 / p0 = 10, at least 100"),
        ({"limit_state": lambda u: u}, r"gives shape \[100, 2\] for 100 points"),
        ({"limit_state": lambda u: u[:, 0] * np.nan}, "nan or inf at"),
        ({"limit_state": lambda u: np.ones(len(u))}, "does not come below 1 in 2 levels"),
        ({"limit_state": lambda u: np.exp(u[:, 0])}, "in 30 levels; give one that falls"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments, message):
    settings = {"limit_state": lambda u: 3 - u[:, 0], "dimension": 2, "samples": 100}
    with pytest.raises(UserError, match=message):
        subset_simulation(**settings | arguments)


MARGINALS = [
    (Normal(1, 0.2), stats.norm(1, 0.2)),
    (LogNormal(2, 0.5), stats.lognorm(np.log1p(1 / 16) ** 0.5, scale=2 / (17 / 16) ** 0.5)),
    (Exponential(3), stats.expon(scale=3)),
    (Uniform(-1, 4), stats.uniform(-1, 5)),
]


@pytest.mark.parametrize(("marginal", "same"), MARGINALS, ids=lambda one: type(one).__name__)
def test_marginals_are_those_of_scipy_and_lead_back(marginal, same):
    u = np.linspace(-6, 6, 25)
    # Each tail from the side on which it is precise.
    expected = np.where(u < 0, same.ppf(stats.norm.cdf(u)), same.isf(stats.norm.sf(u)))
    np.testing.assert_allclose(marginal.from_normal(u), expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(marginal.to_normal(marginal.from_normal(u)), u, atol=1e-6)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: Normal(0, 0), "sd of Normal is 0; it must be positive"),
        (lambda: LogNormal(-1, 1), "mean of LogNormal is -1"),
        (lambda: Exponential(float("nan")), "mean of Exponential is nan"),
        (lambda: Uniform(1, 1), "Uniform runs from 1 to 1; high must lie above low"),
        (lambda: Independent([]), "no marginals"),
        (lambda: Independent([Normal()]).from_normal([1.0]), r"u has shape \[1\]"),
        (lambda: Independent([Uniform(0, 4)]).to_normal([[4.0]]), "variable 0 of x is 4.0, not w"),
        (lambda: Independent([Exponential()]).to_normal([[-1.0]]), "variable 0 of x is -1.0"),
    ],
)
def test_mistakes_of_marginals_are_told(mistake, message):
    with pytest.raises(UserError, match=message):
        mistake()
