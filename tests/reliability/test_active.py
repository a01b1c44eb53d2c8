"""Active learning round by round: its choice of points, its stop, and going on exactly."""

import json

import numpy as np
import pytest
from scipy import stats

from critical_periods.core.errors import UserError
from critical_periods.reliability import (
    ActiveReliability,
    Architecture,
    DeepKernelGP,
    expected_feasibility,
    misclassification,
    subset_simulation,
)
from critical_periods.reliability.active import _thinned
from critical_periods.reliability.learning import choose

P = float(stats.norm.sf(2))


def line(u: np.ndarray) -> np.ndarray:
    return 2 - u.sum(axis=1) / u.shape[1] ** 0.5


def active(**arguments) -> ActiveReliability:
    model = DeepKernelGP([Architecture(1)], folds=2)
    settings = {"dimension": 3, "budget": 44, "initial": 20, "batch": 8, "samples": 2000}
    return ActiveReliability(**{"model": model, **settings, **arguments})


@pytest.mark.parametrize("learning", ["u", "expected_feasibility"])
def test_a_line_is_found_from_few_evaluations_and_stable(learning):
    run = active(learning=learning, tolerance=0.15)
    last = run.run(line)
    assert last.probability == pytest.approx(P, rel=0.15)
    assert last.low <= last.probability <= last.high
    assert last.evaluations == len(run.points) == len(run.values) <= 44
    # Later points lie nearer the boundary than those of the design.
    assert abs(line(run.points[20:])).mean() < abs(line(run.points[:20])).mean() / 2


def test_it_ends_when_the_probability_is_stable_or_the_budget_is_spent():
    assert active(tolerance=0.99, patience=1).run(line).evaluations == 20 + 8
    spent = active(tolerance=1e-9, budget=30)
    assert spent.run(line).evaluations == 30
    assert [one.evaluations for one in spent.rounds] == [20, 28, 30]
    assert spent.ask() is None and len(spent.rounds) == 3


def test_it_goes_on_exactly_wherever_it_was_killed():
    whole = active(budget=30)
    whole.run(line)
    state = json.dumps(active().state())
    while True:  # a new process for each ask and each tell
        asked, told = active(budget=30), active(budget=30)
        asked.resume(json.loads(state))
        if (points := asked.ask()) is None:
            break
        assert (asked.ask() == points).all()
        if asked.rounds:
            told.resume(json.loads(json.dumps(asked.state())))
            assert (told.ask() == points).all()
        told.tell(points, line(points))
        state = json.dumps(told.state())
    assert asked.state() == whole.state()


def test_points_that_were_moved_a_little_are_taken():
    run = active()
    first = run.ask()
    assert first is not None
    noise = 0.3 * np.random.default_rng(0).standard_normal(20)
    run.tell(first.round(1), line(first.round(1)) + noise)
    assert (run.points == first.round(1)).all()
    points = run.ask()
    assert points is not None
    assert len(np.unique(points, axis=0)) == len(points) == 8


def test_a_gp_that_never_fails_says_so_and_goes_on():
    run = active(budget=28)
    last = run.run(lambda u: 1e3 + u[:, 0])
    assert last.probability == 0 and last.evaluations == 28


def test_the_weights_of_thinned_populations_are_those_of_the_whole_space():
    found = subset_simulation(lambda u: 3 - u.sum(axis=1) / 2, 4, 20_000, seed=1)
    points, weights = _thinned(found)
    failing = points.sum(axis=1) / 2 >= 3
    assert len(points) <= 1001 * len(found.populations)
    assert weights.sum() == pytest.approx(1) and weights[failing].sum() == pytest.approx(
        found.probability
    )
    # Of events that no threshold is made for: P(x > t) by weights and by the closed form.
    for t in (0.0, 1.0, 2.0, 2.5):
        share = weights[points.sum(axis=1) / 2 > t].sum()
        assert share == pytest.approx(stats.norm.sf(t), rel=0.15)


def test_learning_functions_are_the_integrals_that_define_them():
    mean, sd = np.array([0.0, 0.7, -2.0, 30.0]), np.array([1.0, 0.5, 1.5, 0.1])
    g = mean[:, None] + sd[:, None] * (z := np.linspace(-12, 12, 200_001))
    density = stats.norm.pdf(z)
    near = np.maximum(0, 2 * sd[:, None] - abs(g))
    expected = np.trapezoid(near * density, z, axis=1)
    np.testing.assert_allclose(expected_feasibility(mean, sd), expected, atol=1e-8)
    wrong = np.where(mean >= 0, stats.norm.cdf(-mean / sd), stats.norm.sf(-mean / sd))
    np.testing.assert_allclose(misclassification(mean, sd), wrong)


def test_a_batch_is_chosen_with_the_covariance_given_the_points_before():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((12, 6))
    covariance, mean, noise = root @ root.T / 6 + 0.01 * np.eye(12), rng.standard_normal(12), 0.05
    chosen = choose(expected_feasibility, mean, covariance, noise, 4, np.ones(12))
    assert len(set(chosen)) == 4
    for count in range(4):
        known = chosen[:count]
        gain = np.linalg.solve(
            covariance[np.ix_(known, known)] + noise * np.eye(count), covariance[known]
        )
        left = (covariance - covariance[:, known] @ gain).diagonal()
        score = expected_feasibility(mean, left**0.5)
        score[known] = -1
        assert score.argmax() == chosen[count]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: active(dimension=0), "dimension is 0"),
        (lambda: active(budget=19), "budget is 19, less than the 20 points of the initial design"),
        (lambda: active(initial=3), "initial is 3; 2 folds need at least 4"),
        (lambda: active(batch=0), "batch is 0"),
        (lambda: active(tolerance=0), "tolerance is 0"),
        (
            lambda: active(learning="U"),
            "learning is 'U'; choose one of 'expected_feasibility', 'u'",
        ),
        (lambda: active().tell([[0.0, 0.0]], [1.0]), r"points have shape \[1, 2\]"),
        (lambda: active().tell([[0.0] * 3], [np.nan]), "is nan or inf"),
        (lambda: active(samples=5), "samples is 5"),
    ],
)
def test_mistakes_are_told_in_a_sentence(mistake, message):
    with pytest.raises(UserError, match=message):
        mistake()
