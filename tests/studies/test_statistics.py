"""Intervals, the beginning of the critical period and the table of the curve, by hand."""

import math
from dataclasses import replace
from itertools import product
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from critical_periods.studies.plan import Plan, Run
from critical_periods.studies.results import curve
from critical_periods.studies.schedule import Schedule
from critical_periods.studies.statistics import critical_removal, summarise

# Means over seeds.


@pytest.mark.parametrize("number", [2, 3, 5, 20])
def test_the_interval_is_that_of_the_t_test(number):
    values = np.random.default_rng(number).normal(0.7, 0.02, number).tolist()
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    found = summarise(values)
    assert found.mean == pytest.approx(mean(values), rel=1e-12)
    assert found.sd == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_one_seed_has_no_spread_and_equal_seeds_have_none():
    alone = summarise([0.5])
    assert alone.mean == 0.5 and all(math.isnan(number) for number in alone[1:])
    assert summarise([0.5, 0.5, 0.5]) == (0.5, 0, 0.5, 0.5)
    for lost in (math.nan, math.inf):
        assert not any(map(math.isfinite, summarise([lost, 0.5])))


# Where the critical period begins.

NAN, INF = math.nan, math.inf
FALLS, FAR = [[0.0, 0.03, 0.01, 0.04]], [[0.0, 0.04, 0.03, -0.01, 0.06]]
SLOPES = [[slope * removal for removal in (0, 10, 20, 30)] for slope in (0.001, 0.002, 0.003)]


@pytest.mark.parametrize(
    ("removals", "losses", "threshold", "expected"),
    [
        # A linear loss passes where it does.
        *(([0, 10, 20, 40], [[0.0, 0.01, 0.02, 0.04]] * 2, t, [1000 * t] * 3)
          for t in (0.01, 0.02, 0.037)),
        # Seeds that pass at 20, 10 and 20/3 epochs: three times one is 1 of 27 resamples, more than
        # the 2.5 % that are cut off.
        ([0, 10, 20, 30], SLOPES, 0.02, [10, 20 / 3, 20]),
        # (0, 3, 1, 4) points become (0, 2, 2, 4): neighbours out of order share their mean.
        *(([0, 10, 20, 30], FALLS, t, [x, NAN, NAN])
          for t, x in ((0.01, 5), (0.02, 10), (0.03, 25))),
        # (0, 4, 3, -1, 6) become (0, 2, 2, 2, 6): pooling 4 with 3 is still above -1.
        *((list(range(5)), FAR, t, [x, NAN, NAN])
          for t, x in ((0.01, 0.5), (0.02, 1), (0.04, 3.5))),
        # Never, or once but not on average with what came after.
        ([0, 10, 20], [[0.0, 0.001, 0.002]] * 3, 0.01, [INF] * 3),
        ([0, 10, 20], [[0.0, 0.015, 0.0]], 0.01, [INF, NAN, NAN]),
        # Some seeds that never pass leave the interval open.
        ([0, 10, 20], [[0.0, 0.03, 0.06], [0.0] * 3, [0.0, 0.02, 0.03]], 0.01, [6, 10 / 3, INF]),
        # From the start.
        ([5, 10], [[0.02, 0.05]] * 2, 0.01, [5] * 3),
        ([5, 10], [[0.01, 0.05]] * 2, 0.01, [5] * 3),
        # A single seed has no interval.
        ([0, 10], [[0.0, 0.02]], 0.01, [5, NAN, NAN]),
    ],
)  # fmt: skip
def test_where_the_critical_period_begins(removals, losses, threshold, expected):
    assert critical_removal(removals, losses, threshold) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("number", range(3))
def test_the_interval_holds_the_estimate_whatever_the_order(number):
    draw = np.random.default_rng(number)
    removals = [0, 10, 20, 40]
    losses = (np.array([0.0, 0.008, 0.02, 0.05]) + 0.004 * draw.normal(size=(4, 4))).tolist()
    found = critical_removal(removals, losses, 0.015)
    assert found[1] <= found[0] <= found[2] and found[1] < found[2]
    for order in ([3, 2, 1, 0], [2, 0, 3, 1]):
        assert critical_removal(removals, [losses[seed] for seed in order], 0.015) == found
        turned = [[of[place] for place in order] for of in losses]
        epochs = [removals[place] for place in order]
        assert critical_removal(epochs, turned, 0.015)[0] == pytest.approx(found[0])


# The table of the curve.

WINDOWS = [Schedule(0, 2, 6), Schedule(0, 4, 8), Schedule(0, 0, 6), Schedule(0, 0, 8)]
# Seeds differ by far more than the deficit does.
OFFSETS = {0: 0.5, 1: 0.7, 2: 0.9}
LOSSES = {2: 0.01, 4: 0.03}


def plan_of(windows: list[Schedule], seeds: list[int], *variations: dict[str, Any]) -> Plan:
    runs = [Run(*of, seed, "") for seed in seeds for of in product(variations or [{}], windows)]
    return Plan("s", [], {}, runs, threshold=0.02)


PLAN = plan_of(WINDOWS, list(OFFSETS))


def row(window: Schedule, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    return {"study": "s", **more, **window._asdict(), "seed": seed, "final_accuracy": accuracy}


def accuracy(window: Schedule, seed: int) -> float:
    """Longer runs are better by two points; the deficit costs each seed about the same."""
    better = 0.02 if window.epochs == 8 else 0.0
    return OFFSETS[seed] + better - LOSSES.get(window.removal, 0) * (1 + 0.1 * (seed - 1))


def all_rows() -> list[dict[str, Any]]:
    return [row(window, seed, accuracy(window, seed)) for window in WINDOWS for seed in OFFSETS]


def test_the_curve_compares_each_seed_with_itself_in_runs_as_long():
    points = curve(PLAN, all_rows())
    # Where the critical period begins, by all seeds, and by the worst and the best one alone.
    beginnings = [2 + 2 * (0.02 - 0.01 * s) / (0.02 * s) for s in (1.0, 1.1, 0.9)]
    names = ("critical_removal", "critical_removal_low", "critical_removal_high")
    # The control of six epochs is the curve's own point at 0; that of eight is none.
    assert [(point["removal"], point["epochs"]) for point in points] == [(2, 6), (4, 8), (0, 6)]
    for point in points:
        loss, better = LOSSES.get(point["removal"], 0.0), 0.02 if point["epochs"] == 8 else 0.0
        assert point["seeds"] == 3
        assert point["final_accuracy"] == pytest.approx(0.7 + better - loss)
        assert point["final_accuracy_control"] == pytest.approx(0.7 + better)
        assert point["final_accuracy_difference"] == pytest.approx(-loss)
        # The seeds' own levels are in the spread of the means, not in that of the differences.
        assert point["final_accuracy_control_sd"] == pytest.approx(0.2)
        assert point["final_accuracy_difference_sd"] == pytest.approx(0.1 * loss, abs=1e-9)
        paired = [-loss * share for share in (0.9, 1.0, 1.1)]
        expected = summarise(paired)
        ends = (point["final_accuracy_difference_low"], point["final_accuracy_difference_high"])
        assert ends == pytest.approx((expected.low, expected.high), rel=1e-4, abs=1e-9)
        assert [point[name] for name in names] == pytest.approx(beginnings, rel=1e-5)
        assert point["threshold"] == 0.02


def test_seeds_that_are_missing():
    """A control of seed 0 and a deficit of seed 2 are not there (yet)."""
    rows = [
        one
        for one in all_rows()
        if (one["seed"], one["removal"], one["epochs"]) not in ((0, 0, 6), (2, 4, 8))
    ]
    points = {point["removal"]: point for point in curve(PLAN, rows)}
    assert [points[removal]["seeds"] for removal in (0, 2, 4)] == [2, 3, 2]
    two, four = points[2], points[4]
    assert two["final_accuracy"] == pytest.approx(0.69)
    assert two["final_accuracy_control"] == pytest.approx(0.8)
    # Seeds 1 and 2 alone are pairs.
    assert two["final_accuracy_difference"] == pytest.approx(-0.0105)
    assert two["final_accuracy_difference_sd"] == pytest.approx(stdev([0.01, 0.011]), rel=1e-5)
    assert four["final_accuracy_difference"] == pytest.approx(-mean([0.027, 0.03]))
    assert four["final_accuracy_control"] == pytest.approx(0.72)
    # Seed 1 alone has the whole curve.
    assert four["critical_removal"] == pytest.approx(3)
    assert math.isnan(four["critical_removal_low"])


def test_a_diverged_seed_leaves_the_rest_as_it_is():
    """What is nan of one seed is nan over seeds; all else is said."""
    rows = [one | {"rsv_mean": math.nan if one["seed"] == 1 else 0.25} for one in all_rows()]
    for point, plain in zip(curve(PLAN, rows), curve(PLAN, all_rows()), strict=True):
        assert plain.items() <= point.items()
        assert all(math.isnan(point[name]) for name in point if name.startswith("rsv_mean"))
    # A curve that is not whole says nothing of where the critical period begins.
    lost = [one | {"final_accuracy": math.nan} if one["seed"] == 2 else one for one in all_rows()]
    whole = [one for one in all_rows() if one["seed"] != 2]
    estimates = [curve(PLAN, some)[0] for some in (lost, whole)]
    assert len({point["critical_removal"] for point in estimates}) == 1
    assert math.isnan(estimates[0]["final_accuracy"])


def test_no_controls_and_no_runs():
    """What is known is written all the same."""
    rows = [row(WINDOWS[0], 0, 0.5), row(WINDOWS[0], 1, 0.6)]
    (point,) = curve(plan_of(WINDOWS, [0, 1]), rows)
    assert point["final_accuracy"] == pytest.approx(0.55)
    assert not any("control" in name or "critical" in name for name in point)
    assert curve(plan_of(WINDOWS, [0, 1]), []) == []


def test_variations_are_apart_and_measures_may_be_missing():
    variations = [{"variant": "a", "depth": 1}, {"variant": "b", "depth": {"x": [1]}}]
    cell = ["a", "b"], [1, '{"x": [1]}']
    rows = []
    for place, (variant, depth) in enumerate(zip(*cell, strict=True)):
        for window in WINDOWS:
            one = row(window, 0, accuracy(window, 0) - 0.1 * place, variant=variant, depth=depth)
            rows.append(one | ({"rsv_mean": 0.25} if place else {}))
    points = curve(plan_of(WINDOWS, [0], *variations), rows)
    assert [(p["variant"], p["depth"]) for p in points] == [
        (variant, depth) for variant, depth in zip(*cell, strict=True) for _ in range(3)
    ]
    assert list(points[0])[:6] == ["variant", "depth", "onset", "removal", "epochs", "seeds"]
    for a, b in zip(points[:3], points[3:], strict=True):
        assert b["final_accuracy"] == pytest.approx(a["final_accuracy"] - 0.1)
        assert b["final_accuracy_difference"] == pytest.approx(a["final_accuracy_difference"])
        assert "rsv_mean" not in a and (b["rsv_mean"], b["rsv_mean_difference"]) == (0.25, 0)
        assert math.isnan(a["final_accuracy_sd"]) and math.isnan(a["critical_removal_low"])
        assert a["critical_removal"] == b["critical_removal"]


def has_no_critical_removal(points: list[dict[str, Any]]) -> bool:
    return not any("critical_removal" in point or "threshold" in point for point in points)


def test_onsets_have_no_critical_removal():
    windows = [Schedule(0, 2, 8), Schedule(0, 4, 8), Schedule(3, 5, 8), Schedule(0, 0, 8)]
    rows = [row(window, 0, 0.5) for window in windows]
    points = curve(plan_of(windows, [0]), rows)
    assert len(points) == 4 and has_no_critical_removal(points)
    # Nor where the windows that are done, so far, begin at 0.
    partly = [one for one in rows if one["onset"] == 0]
    points = curve(plan_of(windows, [0]), partly)
    assert len(points) == 3 and has_no_critical_removal(points)


def test_two_removals_have_no_critical_removal():
    """Between 0 and one other there is nothing but a straight line."""
    windows = [one for one in WINDOWS if one.removal != 2]
    rows = [one for one in all_rows() if one["removal"] != 2]
    points = curve(plan_of(windows, list(OFFSETS)), rows)
    assert len(points) == 2 and has_no_critical_removal(points)
    points = curve(PLAN, rows)  # the third is to come
    assert len(points) == 2 and has_no_critical_removal(points)


def windowed(*class_paths: str) -> Plan:
    """A plan whose variations have these callbacks, and a second stage, which has none."""
    configs = [({}, {"class_path": name, "init_args": {}}) for name in class_paths]
    return replace(PLAN, configs=[*configs, ({}, {})])


def test_a_window_that_is_no_deficit_has_no_critical_removal():
    """Nothing is impaired while weight decay acts."""
    points = curve(windowed("RegularizationWindow"), all_rows())
    assert len(points) == 3 and has_no_critical_removal(points)
    assert not has_no_critical_removal(curve(windowed("DeficitWindow"), all_rows()))


@pytest.mark.parametrize(
    ("class_paths", "kind"),
    [
        (["DeficitWindow"], "deficit"),
        (["DeficitWindow", "critical_periods.callbacks.SubsetWindow"], "deficit"),
        (["critical_periods.callbacks.RegularizationWindow"], "window"),
        (["DeficitWindow", "RegularizationWindow"], "window"),
        (["somebodys.own.Curriculum"], "window"),
    ],
)
def test_what_comes_and_goes(class_paths, kind):
    assert windowed(*class_paths).kind_of_window == kind
