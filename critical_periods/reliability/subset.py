"""Subset simulation: the probability of a rare failure as a product of likelier ones."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from critical_periods.core.errors import UserError
from critical_periods.core.randomness import Stream, fold

Array = NDArray[np.float64]
LimitState = Callable[[Array], Array]
"""g(u): points of standard normal space, [n, d], to [n]; g <= 0 is failure."""

# Of the adaptive conditional sampling: the acceptance aimed at, and the first scale of a step.
_ACCEPTANCE, _FIRST_SCALE = 0.44, 0.6


@dataclass(frozen=True)
class SubsetSimulation:
    """What :func:`subset_simulation` found.

    Args:
        probability: of failure.
        cov: its coefficient of variation (standard deviation over mean), estimated.
        evaluations: how many times g was evaluated.
        thresholds: of g, a level each; the last is 0.
        level_probabilities: of each level, given the one above it.
        populations: the points of each level, [n, d] each: the first of the whole space, each
            other one of g below the threshold before it.
        values: g at each of them, [n].
    """

    probability: float
    cov: float
    evaluations: int
    thresholds: tuple[float, ...]
    level_probabilities: tuple[float, ...]
    populations: tuple[Array, ...]
    values: tuple[Array, ...]


def subset_simulation(
    limit_state: LimitState, dimension: int, samples: int = 1000, p0: float = 0.1, seed: int = 0
) -> SubsetSimulation:
    """The probability that g(u) <= 0, u standard normal, by nested events that are each likelier.

        P(g <= 0) = P(g <= b_1) P(g <= b_2 | g <= b_1) ... P(g <= 0 | g <= b_m)

    Each b is the p0-quantile of g in its level. The points of the next level are Markov chains of
    length 1 / p0 from the points below b: from u to ρ u + sqrt(1 - ρ²) ξ, ξ standard normal, where
    g stays below b, else u again. ρ = sqrt(1 - σ²) of each coordinate follows the spread of the
    chains' first points, σ = min(1, λ sd), and λ is adapted after each step so that 44 % of the
    steps are accepted.

    The coefficient of variation δ of the estimate counts the correlation r(k) of the indicator
    k steps apart in the chains of a level of probability P:

        δ² = Σ_levels (1 - P) / (P n) · (1 + γ),  γ = 2 Σ_k (1 - k p0) r(k)

    Source: Au & Beck, *Estimation of small failure probabilities in high dimensions by subset
    simulation* (2001), for δ; Papaioannou, Betz, Zwirglmaier & Straub, *MCMC algorithms for Subset
    Simulation* (2015), for adaptive conditional sampling.

    Args:
        limit_state: g, which takes [n, d] and gives [n]; failure is g <= 0.
        dimension: d, the number of standard normal variables.
        samples: n, points of each level.
        p0: probability of each level but the last.
        seed: of all that is drawn; the same seed gives the same bits.

    Raises:
        UserError: an argument is out of range, g gives something else than n finite numbers, or
            the levels lead to no failure.

    Example:
        >>> beta = 3.5  # P = Φ(-β) = 2.33e-4
        >>> found = subset_simulation(lambda u: beta - u.sum(axis=1) / 10, 100, samples=5000)
        >>> f"{found.probability:.1e} ± {found.cov:.0%} from {found.evaluations} evaluations"
        '2.6e-04 ± 12% from 18500 evaluations'
    """
    found = simulate(limit_state, dimension, samples, p0, seed)
    if found.thresholds[-1] > 0:
        raise UserError(
            f"the limit state does not come below {found.thresholds[-1]:g} in "
            f"{len(found.thresholds)} levels; give one that falls towards failure, at 0."
        )
    return found


def simulate(
    limit_state: LimitState,
    dimension: int,
    samples: int,
    p0: float = 0.1,
    seed: int = 0,
    most_levels: int = 30,
) -> SubsetSimulation:
    """As :func:`subset_simulation`, but where no failure is reached, the probability is 0.

    The last threshold is above 0 then.
    """
    seeds, length = check_chains(dimension, samples, p0)
    rng = np.random.default_rng(fold(Stream.SUBSET_SIMULATION, seed))
    points = rng.standard_normal((samples, dimension))
    values = _evaluate(limit_state, points)
    populations, levels, thresholds = [points], [values], [_threshold(values, seeds)]
    scale = _FIRST_SCALE
    while thresholds[-1] > 0 and len(levels) < most_levels and _falls(thresholds):
        first = np.flatnonzero(values <= thresholds[-1])
        # More than enough where values are equal.
        first = rng.permutation(first)[:seeds]
        points, values, scale = _conditional(
            limit_state, points[first], values[first], thresholds[-1], length, scale, rng
        )
        populations.append(points)
        levels.append(values)
        thresholds.append(_threshold(values, seeds))
    bounds = [*thresholds[:-1], 0.0]
    fails = [value <= bound for value, bound in zip(levels, bounds, strict=True)]
    probabilities = [float(one.mean()) for one in fails]
    variances = [_squared_cov(one, length if i else 1) for i, one in enumerate(fails)]
    return SubsetSimulation(
        float(np.prod(probabilities)),
        float(np.sqrt(sum(variances))),
        samples + (len(levels) - 1) * (samples - seeds),
        tuple(thresholds),
        tuple(probabilities),
        tuple(populations),
        tuple(levels),
    )


def _falls(thresholds: list[float]) -> bool:
    return len(thresholds) < 2 or thresholds[-1] < thresholds[-2]


def check_chains(dimension: int, samples: int, p0: float = 0.1) -> tuple[int, int]:
    """How many chains a level has, and how long they are."""
    if dimension < 1:
        raise UserError(f"dimension is {dimension}; give the number of variables, from 1 on.")
    length = round(1 / p0) if 0 < p0 <= 0.5 else 0
    if not length or abs(length * p0 - 1) > 1e-9:
        raise UserError(f"p0 is {p0}; give one over a whole number from 2 on, such as 0.1.")
    if samples < 10 * length or samples % length:
        raise UserError(
            f"samples is {samples}; give a multiple of 1 / p0 = {length}, at least {10 * length}."
        )
    return samples // length, length


def _threshold(values: Array, seeds: int) -> float:
    """Midway between the last value of the lowest share and the next, 0 where that is failure."""
    low, high = np.partition(values, (seeds - 1, seeds))[seeds - 1 : seeds + 1]
    return max(0.0, float((low + high) / 2))


def _conditional(
    limit_state: LimitState,
    points: Array,
    values: Array,
    bound: float,
    length: int,
    scale: float,
    rng: np.random.Generator,
) -> tuple[Array, Array, float]:
    """Chains from points below a bound, step by step: [length * chains, d], values, scale."""
    spread = points.std(axis=0)
    steps, found = [points], [values]
    for step in range(1, length):
        sigma = np.minimum(1, scale * spread)
        moved = np.sqrt(1 - sigma**2) * points + sigma * rng.standard_normal(points.shape)
        there = _evaluate(limit_state, moved)
        accepted = there <= bound
        points = np.where(accepted[:, None], moved, points)
        values = np.where(accepted, there, values)
        scale *= float(np.exp((accepted.mean() - _ACCEPTANCE) / np.sqrt(step)))
        steps.append(points)
        found.append(values)
    return np.concatenate(steps), np.concatenate(found), scale


def _squared_cov(fails: NDArray[np.bool_], length: int) -> float:
    """δ² of a level, whose points are ``length`` steps of chains, one step after the other."""
    probability = fails.mean()
    chains = fails.reshape(length, -1).astype(np.float64)
    variance = probability * (1 - probability)
    if not variance:
        return 0.0
    gamma = 0.0
    for lag in range(1, length):
        covariance = (chains[:-lag] * chains[lag:]).mean() - probability**2
        gamma += 2 * (1 - lag / length) * covariance / variance
    return float((1 - probability) / (probability * fails.size) * max(0.0, 1 + gamma))


def _evaluate(limit_state: LimitState, points: Array) -> Array:
    values = np.asarray(limit_state(points), dtype=np.float64)
    if values.shape != (len(points),):
        raise UserError(
            f"the limit state gives shape {list(values.shape)} for {len(points)} points; it must "
            f"give one number a point, [{len(points)}]."
        )
    if not np.isfinite(values).all():
        at = points[~np.isfinite(values)][0]
        raise UserError(f"the limit state is nan or inf at {at[:8]}; give finite values.")
    return values
