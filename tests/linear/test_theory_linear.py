"""Linear learning: closed forms, the ODE and gradient descent, each against what it must equal."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.random import default_rng as rng

from critical_periods.core.errors import UserError
from critical_periods.linear import (
    DeepLinear,
    Dropped,
    balanced_starts,
    compare,
    deep_strengths,
    deep_weights,
    drop_sensors,
    five_tasks,
    gradient_descent,
    gradient_flow,
    mode_strengths,
    product,
    random_starts,
    shallow_strengths,
    shallow_weights,
)

A0 = 1e-4
WEIGHTS = (shallow_weights, deep_weights)
SWITCHES = {
    "all": (),
    "dropped": (Dropped(2),),
    "restored": (Dropped(2, removal=6.0),),
    "dropped later": (Dropped(2, onset=2.0, removal=4.0), Dropped(0, onset=3.0)),
}


# Closed forms.


@pytest.mark.parametrize("s", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("a0", [1e-4, 0.2, 6.0])
def test_strengths_are_the_formulas_as_they_are_printed(s, a0):
    times = [0.0, 0.5, 2.0, 8.0]
    deep = [s * math.exp(2 * s * t) / (math.exp(2 * s * t) - 1 + s / a0) for t in times]
    shallow = [s * (1 - math.exp(-t)) + a0 * math.exp(-t) for t in times]
    np.testing.assert_allclose(deep_strengths([s], a0, times)[:, 0], deep, rtol=1e-12)
    np.testing.assert_allclose(shallow_strengths([s], a0, times)[:, 0], shallow, rtol=1e-12)


@pytest.mark.parametrize("s", [0.0, 1e-300, 1e-9, 2.0])
def test_deep_strengths_solve_their_equation_even_where_nothing_is_to_be_learned(s):
    """da/dt = 2 a (s - a), by a difference quotient."""
    times, h = np.array([0.5, 3.0, 40.0]), 1e-5
    early, now, late = (deep_strengths([s], 0.1, times + shift)[:, 0] for shift in (-h, 0, h))
    np.testing.assert_allclose((late - early) / (2 * h), 2 * now * (s - now), rtol=1e-6, atol=1e-10)


def test_strengths_are_stable_at_both_ends():
    huge = deep_strengths([0.0, 1e-300, 1e-12, 3.0, 1e8], 1e-4, [1e6])[0]
    decayed = 1e-4 / (1 + 2 * 1e-4 * 1e6)
    np.testing.assert_allclose(huge, [decayed, decayed, decayed, 3.0, 1e8], rtol=1e-5)
    assert deep_strengths([5.0], 1e-300, [1.0])[0, 0] == pytest.approx(1e-300 * math.exp(10))
    assert shallow_strengths([1e-20], 0.0, [1e-9])[0, 0] == pytest.approx(1e-29, rel=1e-8)


@pytest.mark.parametrize("depth", [1, 2])
def test_entries_are_sums_over_modes(depth):
    sigma, times = rng(0).standard_normal((3, 4)), [0.0, 0.7, 2.0]
    u, s, vt = np.linalg.svd(sigma)
    strengths = (shallow_strengths, deep_strengths)[depth - 1](s, 0.01, times)
    weights = WEIGHTS[depth - 1](sigma, 0.01, times)
    expected = [u @ np.diag(now) @ vt[:3] for now in strengths]
    np.testing.assert_allclose(weights, expected, atol=1e-14)
    np.testing.assert_allclose(mode_strengths(sigma, weights), strengths, atol=1e-14)
    np.testing.assert_allclose(WEIGHTS[depth - 1](sigma, 0.01, [200.0])[0], sigma, atol=1e-12)


def test_only_depth_makes_a_sensor_wait_for_another():
    """The paper's Fig. 2: without sensor 3, task 5 learns from sensor 8 much later, if deep."""
    times = np.linspace(0, 10, 101)
    whole, without = five_tasks(), drop_sensors(five_tasks(), [2])
    deep = [deep_weights(sigma, A0, times)[:, 4, 7] for sigma in (whole, without)]
    assert deep[0][20] > 0.4 and deep[1][20] < 0.01 and deep[1][-1] > 0.99
    shallow = [shallow_weights(sigma, 0.0, times)[:, :, 3:] for sigma in (whole, without)]
    np.testing.assert_allclose(*shallow, rtol=0, atol=1e-14)
    # Of sensors that task 5 never needs, the deep network listens to some for a while.
    assert deep_weights(whole, A0, times)[:, 4, 0].max() > 0.5
    assert abs(shallow_weights(whole, 0.0, times)[:, 4, 0]).max() < 1e-14


# Three ways to one course.


@pytest.mark.parametrize(
    ("depth", "switch", "until", "step"),
    [(1, name, 10, 1e-3) for name in SWITCHES]
    # The strongest mode of all sensors is learned at once, which takes small steps to follow.
    + [(2, "dropped later", 5, 6e-5)]
    + [(2, "dropped", 10, 5e-4), (2, "restored", 10, 5e-4)],
)
def test_closed_form_flow_and_simulation_agree(depth, switch, until, step):
    times = np.linspace(0, until, 101)
    case = compare(five_tasks(), depth, A0, times, SWITCHES[switch], step)
    for course in (case.flow, case.simulation):
        assert course.shape == (101, 5, 8) and np.isfinite(course).all()
    assert abs(case.simulation - case.flow).max() < 1e-3

    holds = times <= {"restored": 6.0, "dropped later": 2.0}.get(switch, until)
    assert np.isnan(case.closed[~holds]).all()
    np.testing.assert_allclose(case.flow[holds], case.closed[holds], rtol=0, atol=1e-7)
    assert abs(case.simulation - case.closed)[holds].max() < 1e-3
    assert 1e-7 < case.gap < 1e-3


def test_the_gap_is_a_multiple_of_the_step_and_by_default_less_than_a_thousandth():
    """The figure's case, and what a user gets who chooses no step."""
    times = np.linspace(0, 4, 81)
    gaps = [compare(five_tasks(), 2, A0, times, step=step).gap for step in (1e-3, 5e-4)]
    assert gaps[0] == pytest.approx(2 * gaps[1], rel=0.05) and gaps[0] > 0.01
    default = compare(five_tasks(), 2, A0, times)
    assert default.gap == pytest.approx(gaps[0] / 20, rel=0.05) and default.gap < 1e-3
    np.testing.assert_allclose(default.flow, default.closed, rtol=0, atol=1e-7)


@pytest.mark.parametrize("depth", [1, 2])
def test_the_three_ways_agree_where_some_modes_carry_nothing(depth):
    sigma = np.outer([1.0, 2.0, 0.0], [1.0, 0.0, -1.0, 0.5])
    case = compare(sigma, depth, 0.3, np.linspace(0, 5, 11), step=2e-4)
    assert case.gap < 1e-3
    # From a start of 0.3 the empty modes decay, and faster in the shallow network.
    empty = mode_strengths(sigma, case.flow)[-1, 1:]
    np.testing.assert_allclose(empty, 0.3 / 4 if depth == 2 else 0.3 * math.exp(-5), rtol=1e-6)


def test_of_one_deep_mode_the_switches_have_closed_forms():
    """A single sensor is learned, forgotten as a / (1 + 2at), and learned anew."""
    dropped = [Dropped(0, onset=2.0, removal=5.0)]
    times = np.array([1.0, 2.0, 3.0, 5.0, 5.5, 6.0])
    course = product(gradient_flow([[3.0]], balanced_starts([[3.0]], 0.01), times, dropped))
    learned = deep_strengths([3.0], 0.01, [1.0, 2.0])
    forgotten = deep_strengths([0.0], learned[-1, 0], [1.0, 3.0])
    anew = deep_strengths([3.0], forgotten[-1, 0], [0.5, 1.0])
    np.testing.assert_allclose(course[:, 0], [*learned, *forgotten, *anew], rtol=1e-8)


def test_a_shallow_sensor_that_is_dropped_decays_and_disturbs_no_other():
    sigma, times, start = five_tasks(), [2.0, 2.5, 3.0, 4.0], [np.zeros((5, 8))]
    course = product(gradient_flow(sigma, start, times, [Dropped(2, onset=2.0, removal=3.0)]))
    others = np.delete(course - shallow_weights(sigma, 0.0, times), 2, axis=-1)
    np.testing.assert_allclose(others, 0, atol=1e-9)
    at_onset = 3 * (1 - math.exp(-2))
    at_removal = at_onset * math.exp(-1)
    expected = [at_onset, at_onset * math.exp(-0.5), at_removal, 3 + (at_removal - 3) / math.e]
    np.testing.assert_allclose(course[:, 4, 2], expected, atol=1e-9)


def test_two_deficits_of_one_sensor_may_overlap():
    starts, times = balanced_starts(five_tasks(), 0.1), [0.5, 3.0]
    long = gradient_flow(five_tasks(), starts, times, [Dropped(2, 0.2, 2.0)])
    both = gradient_flow(five_tasks(), starts, times, [Dropped(2, 0.2, 1.5), Dropped(2, 1.0, 2.0)])
    np.testing.assert_allclose(product(long), product(both), atol=1e-8)


def test_hidden_rotations_do_not_show_and_the_layers_stay_in_balance():
    times = np.linspace(0, 6, 13)
    dropped = SWITCHES["dropped later"]
    plain, turned = (
        gradient_flow(five_tasks(), balanced_starts(five_tasks(), A0, 2, draws), times, dropped)
        for draws in (None, rng(0))
    )
    np.testing.assert_allclose(product(plain), product(turned), atol=1e-7)
    assert abs(plain[0] - turned[0]).max() > 0.1

    # Whatever the start, W2^T W2 - W1 W1^T never changes.
    starts = random_starts([8, 6, 5], 0.3, rng(0))
    first, second = gradient_flow(five_tasks(), starts, times, dropped)
    balance = np.swapaxes(second, 1, 2) @ second - first @ np.swapaxes(first, 1, 2)
    np.testing.assert_allclose(balance, np.broadcast_to(balance[0], balance.shape), atol=1e-7)


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_balanced_starts_of_any_depth(depth):
    """Every mode follows da/dt = D a^(2 - 2/D) (s - a), and the layers share it alike."""
    starts = balanced_starts(five_tasks(), 0.2, depth, rng(0))
    u, s, vt = np.linalg.svd(five_tasks(), full_matrices=False)
    np.testing.assert_allclose(product(starts), 0.2 * u @ vt, atol=1e-14)
    for below, above in pairwise(starts):
        np.testing.assert_allclose(below @ below.T, above.T @ above, atol=1e-14)
    h = 1e-4
    flow = gradient_flow(five_tasks(), starts, [1 - h, 1, 1 + h])
    course = mode_strengths(five_tasks(), product(flow))
    expected = depth * course[1] ** (2 - 2 / depth) * (s - course[1])
    np.testing.assert_allclose((course[2] - course[0]) / (2 * h), expected, rtol=1e-4, atol=1e-6)


def test_a_network_is_trained_from_integers_too():
    integers = DeepLinear([[[1, 2]], [[3]]])
    integers(torch.ones(1, 2)).sum().backward()
    assert integers.layers[0].grad.tolist() == [[3.0, 3.0]]


# Simulations.


@pytest.mark.parametrize("widths", [[4, 3], [4, 6, 3], [4, 2, 5, 3]])
def test_gradient_descent_is_full_batch_sgd_on_white_data(widths):
    """Step by step, with the targets that lose and regain the part of sensor 1."""
    sigma = rng(1).standard_normal((3, 4))
    starts = random_starts(widths, 0.5, rng(2))
    x = torch.from_numpy(np.linalg.qr(rng(3).standard_normal((12, 4)))[0]) * math.sqrt(12)
    network, twin = DeepLinear(starts), DeepLinear(starts)
    times = np.arange(31) / 16
    dropped = [Dropped(1, onset=10 / 16, removal=20 / 16)]
    course = gradient_descent(network, sigma, times, dropped, step=1 / 16)
    optimizer = torch.optim.SGD(twin.parameters(), lr=1 / 16)
    for epoch in range(31):
        for of, layer in zip(course, twin.layers, strict=True):
            np.testing.assert_allclose(of[epoch], layer.detach(), atol=1e-12)
        held = drop_sensors(sigma, [1]) if 10 <= epoch < 20 else sigma
        optimizer.zero_grad()
        ((x @ torch.from_numpy(held).T - twin(x)).square().sum(1).mean() / 2).backward()
        optimizer.step()
    assert torch.equal(network.weights, product([torch.from_numpy(of[-1]) for of in course]))


def test_a_step_is_never_longer_than_asked_and_hits_every_time():
    network = DeepLinear([np.zeros((1, 1))])
    (course,) = gradient_descent(network, [[1.0]], [0.05, 0.3, 1.0], step=0.1)
    left = np.cumprod([0.95, (1 - 0.25 / 3) ** 3, 0.9**7])
    np.testing.assert_allclose(course[:, 0, 0], 1 - left, rtol=1e-12)


@pytest.mark.parametrize("widths", [[8, 16, 5], [8, 6, 7, 5]])
def test_simulation_follows_the_flow_from_random_weights(widths):
    starts, times = random_starts(widths, 0.3, rng(0)), np.linspace(0, 3, 7)
    dropped = [Dropped(2, removal=1.5)]
    flow = product(gradient_flow(five_tasks(), starts, times, dropped))
    trained = gradient_descent(DeepLinear(starts), five_tasks(), times, dropped, step=2e-4)
    assert abs(product(trained) - flow).max() < 1e-3


def test_random_weights_leave_a_gap_that_closes_as_the_hidden_layer_widens():
    times = np.linspace(0, 8, 81)
    closed = deep_weights(five_tasks(), A0, times)

    def gap(width: int, seed: int) -> float:
        starts = random_starts([8, width, 5], math.sqrt(2 * A0 / width), rng(seed))
        return abs(product(gradient_flow(five_tasks(), starts, times)) - closed).max()

    narrow, middle, wide = (np.median([gap(width, s) for s in range(5)]) for width in (8, 64, 512))
    assert narrow > 2 * middle > 4 * wide > 0.01


def test_random_starts_begin_growing_from_a0_on_average():
    """The mean of W1 v and W2^T u has the expected square h std² / 2."""
    starts = [random_starts([3, 8, 2], math.sqrt(2 * A0 / 8), rng(seed)) for seed in range(400)]
    squares = [((first[:, 0] + second[1]) ** 2).sum() / 4 for first, second in starts]
    assert np.mean(squares) == pytest.approx(A0, abs=4 * A0 * math.sqrt(2 / 8 / 400))


# Messages.

SIGMA = [[1.0, 2.0]]
STARTS = [np.ones((1, 2))]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: deep_weights(SIGMA, 0.0, [1]), "a0 is 0.0"),
        (lambda: deep_weights(SIGMA, math.nan, [1]), "a0 is nan"),
        (lambda: shallow_weights(SIGMA, -1.0, [1]), "a0 is -1"),
        (lambda: deep_weights([1.0, 2.0], A0, [1]), r"sigma has shape \[2\]"),
        (lambda: deep_weights(np.zeros((0, 2)), A0, [1]), r"sigma has shape \[0, 2\]"),
        (lambda: shallow_weights([[math.inf]], A0, [1]), "sigma holds nan or inf"),
        (lambda: deep_weights(SIGMA, A0, [-1, 2]), "times run from -1"),
        (lambda: deep_weights(SIGMA, A0, [math.inf]), "times run from inf"),
        (lambda: deep_weights(SIGMA, A0, 3.0), r"times have shape \[\]"),
        (lambda: deep_strengths([-1.0], A0, [1]), "singular_values are"),
        (lambda: mode_strengths(SIGMA, [[1.0]]), r"must end in \[1, 2\]"),
        (lambda: gradient_flow(SIGMA, STARTS, [2, 1]), "do not increase"),
        (lambda: gradient_flow(SIGMA, [np.ones((2, 2))], [1]), "from 2 inputs to 1 outputs"),
        (lambda: gradient_flow(SIGMA, [], [1]), "shapes none"),
        (lambda: gradient_flow(SIGMA, STARTS, [1], [Dropped(2, 5.0)]), "sensor 2 does not exist"),
        (lambda: drop_sensors(SIGMA, [-1]), "sensor -1 does not exist; choose 0 to 1"),
        (lambda: Dropped(0, onset=-1.0), "onset is -1"),
        (lambda: Dropped(0, onset=3.0, removal=3.0), "removal 3.0 is not after onset 3.0"),
        (lambda: balanced_starts(SIGMA, A0, depth=0), "depth is 0"),
        (lambda: balanced_starts(SIGMA, 0.0, depth=2), "stays there"),
        (lambda: random_starts([3], 0.1, rng(0)), "widths are"),
        (lambda: random_starts([3, 0], 0.1, rng(0)), "widths are"),
        (lambda: random_starts([3, 2], -0.1, rng(0)), "std is -0.1"),
        (lambda: DeepLinear([np.ones((3, 2)), np.ones((2, 2))]), "each layer takes"),
        (lambda: DeepLinear([]), "a matrix for each layer"),
        (lambda: DeepLinear([[1.0, 2.0]]), "a matrix for each layer"),
        (lambda: gradient_descent(DeepLinear(STARTS), SIGMA, [1], step=0), "step is 0"),
        (lambda: gradient_descent(DeepLinear(STARTS), [[1.0]], [1]), "from 1 inputs"),
        (lambda: gradient_descent(DeepLinear(STARTS), SIGMA, [1e4], step=9.0), "diverged"),
        (lambda: compare(SIGMA, 3, A0, [1]), "depth is 3"),
    ],
)  # fmt: skip
def test_messages(call, message):
    with pytest.raises(UserError, match=message):
        call()
