"""Statistics over seeds: means with intervals, and the beginning of a critical period."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.stats import t

LEVEL = 0.95
"""Of every interval."""
_RESAMPLES = 1000


class Summary(NamedTuple):
    """A mean over seeds, its sample standard deviation and the ends of its 95 % interval.

    A single seed has no spread (nan), nor have seeds of which one diverged.
    """

    mean: float
    sd: float
    low: float
    high: float


def summarise(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and Student's 95 % interval of the mean.

        mean ± t(0.975; n - 1) · sd / sqrt(n)

    Args:
        values: one a seed, at least one.

    Example:
        >>> [round(number, 3) for number in summarise([1.0, 2.0, 3.0])]
        [2.0, 1.0, -0.484, 4.484]
    """
    centre, sd = average(values), spread(values)
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * sd / math.sqrt(len(values))
    return Summary(centre, sd, centre - half, centre + half)


def average(values: Sequence[float]) -> float:
    """The mean; nan where one of the values is not finite.

    Example:
        >>> average([1.0, 2.0, 6.0]), average([1.0, math.inf])
        (3.0, nan)
    """
    first, distances = _centred(values)
    return float(first + distances.mean())


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; nan of a single value, and where one is not finite.

    Example:
        >>> spread([1.0, 2.0, 3.0]), spread([1.0]), spread([1.0, math.nan])
        (1.0, nan, nan)
    """
    _, distances = _centred(values)
    return float(distances.std(ddof=1)) if len(distances) > 1 else math.nan


def _centred(values: Sequence[float]) -> tuple[float, np.ndarray]:
    """The first value, and how far each is from it: equal values have no spread, to the last bit.

    Sums of numbers that lie close together lose digits, sums of their distances do not.
    """
    table = np.asarray(values, dtype=float)
    if not np.isfinite(table).all():
        return math.nan, np.full_like(table, math.nan)
    return float(table[0]), table - table[0]


def critical_removal(
    removals: Sequence[int], losses: Sequence[Sequence[float]], threshold: float
) -> tuple[float, float, float]:
    """The removal epoch at which the loss of accuracy passes a threshold, and its 95 % interval.

    The loss is fitted by the best curve that never falls (isotonic regression, least squares over
    all seeds), straight between the removals studied; the estimate is where that passes the
    threshold, infinity where it does not within them. The interval holds the middle 95 % of the
    estimates of 1,000 resamples of the seeds (percentile bootstrap). With a handful of seeds it is
    no finer than they are, and too narrow rather than too wide.

    Args:
        removals: the epochs at which the deficit was removed.
        losses: for each seed the loss of final accuracy at each of them: its accuracy without a
            deficit minus that with one.
        threshold: the loss at which the critical period is said to begin.

    Returns:
        The estimate, and the lower and upper end of its interval (nan with a single seed).

    Example:
        >>> critical_removal([0, 10, 20], [[0.0, 0.01, 0.03], [0.0, 0.01, 0.03]], threshold=0.02)
        (15.0, 15.0, 15.0)
    """
    # Sorted, as it must not matter which seed comes first.
    table = np.asarray(sorted(map(list, losses)), dtype=float)
    estimate = _crossing(removals, table.mean(axis=0), threshold)
    if len(table) < 2:
        return estimate, math.nan, math.nan
    draws = np.random.default_rng(0).integers(len(table), size=(_RESAMPLES, len(table)))
    # Few seeds make few different resamples.
    kinds, counts = np.unique(np.sort(draws, axis=1), axis=0, return_counts=True)
    found = [_crossing(removals, table[kind].mean(axis=0), threshold) for kind in kinds]
    resampled = np.sort(np.repeat(found, counts))
    # An order statistic, as infinity has no fractions.
    tail = math.floor(_RESAMPLES * (1 - LEVEL) / 2)
    return estimate, float(resampled[tail]), float(resampled[-1 - tail])


def _crossing(removals: Sequence[int], losses: np.ndarray, threshold: float) -> float:
    order = np.argsort(removals)
    epochs = np.asarray(removals, dtype=float)[order]
    # Equal numbers of seeds: the fit to their mean is the fit to all of them.
    fitted = isotonic_regression(losses[order]).x
    above = np.flatnonzero(fitted >= threshold)
    if not len(above):
        return math.inf
    around = slice(max(above[0] - 1, 0), above[0] + 1)
    return float(np.interp(threshold, fitted[around], epochs[around]))
