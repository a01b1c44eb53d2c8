"""Scar or lag: how the gap that a deficit leaves goes on as training goes on without it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import f, norm, t

from critical_periods.studies.statistics import average

_RESAMPLES = 1000
# From a logarithm, nearly, to a gap that is gone at the second rung.
_SLOWEST, _FASTEST = 0.02, 6.0
_SPEEDS = np.geomspace(_SLOWEST, _FASTEST, 120)
# Steps between no scar and the largest that could be, the gap that was measured last.
_STEPS = 200
# A scar is said of all time to come: at the lower end of its interval the error is so many times
# smaller.
_STRICTER = 20
# A misfit of less, a hundredth of a point, is none.
_RESOLUTION = 1e-4
# All flips of the signs of so many seeds are tried; of more, as many at random.
_FLIPPED = 16

Numbers = NDArray[np.float64]


class Healing(NamedTuple):
    """How a gap heals: gap(T) = scar + size · (T / T₀)^-speed, T₀ being the first rung.

    Intervals are nan with a single seed.

    Attributes:
        scar: what stays, not below 0.
        scar_low: lower end of its interval.
        scar_high: upper end.
        size: what heals, at the first rung.
        speed: the exponent, between 0.02 and 6.
        speed_low: lower end of its interval.
        speed_high: upper end.
        fit_p: how probable so large a misfit is if the gap is a power law; nan with too few seeds
            to say.
        verdict: ``scar``, ``lag`` or ``undecided``; '' without a margin.
    """

    scar: float
    scar_low: float
    scar_high: float
    size: float
    speed: float
    speed_low: float
    speed_high: float
    fit_p: float
    verdict: str


def healing(
    rungs: Sequence[int],
    gaps: Sequence[Sequence[float]] | Numbers,
    margin: float | None = None,
    level: float = 0.95,
) -> Healing:
    """Fits a power law with a scar to the gaps of all seeds at once, and gives the verdict.

    The fit is that of least squares, all rungs alike, with scar and size not negative. Each seed is
    one draw of a whole curve: what a seed's rungs have in common, as they share their trunk, does
    not count as several. Two intervals of the scar, of which the ends that are further out are
    taken, rest on that:

    - Student's test: for a scar s the law is fitted without it, and each seed's residuals are
      projected on the one direction in which a scar differs from all changes of size and speed
      (the efficient score; Neyman's C(α) test). In the interval is every s, up to the upper end of
      the gap at the last rung, whose n projections have a mean that does not differ from 0 by
      t(n - 1).
    - Resampled seeds: the fits to 1,000 resamples of the seeds, between the percentiles
      Φ(±t √(n / (n - 1))), t being Student's quantile, as plain ones are too narrow with few seeds
      (Hesterberg 2015, section 5.3). That of the speed is made likewise.

    At the upper end either errs with (1 - level) / 2. At the lower end it is a twentieth of that:
    with the usual one, lags that heal slowly are a part of the scars found that is not small, as
    most scars stay undecided under noise such as ours (``experiments/benchmarks/verdicts.py``).

    The verdict at a margin m:

    - *scar* where the whole interval of the scar lies above m;
    - *lag* where it lies below m, or where the gap that was measured at the last rung does (the
      upper end of Student's interval): a gap that falls leaves no more than that;
    - *undecided* otherwise. Where the gaps are no power law (Hotelling's test of what is left over,
      at 1 - level), nothing is said that extrapolates: no scar, and a lag by the last rung alone.

    Args:
        rungs: epochs without the deficit, from the fewest to the most.
        gaps: for each seed the loss of accuracy at each of them.
        margin: the loss that counts; ``None`` gives no verdict.
        level: of the intervals.

    Example:
        >>> rungs = [10, 20, 40, 80]
        >>> curve = [0.02 + 0.2 * (rung / 10) ** -1.5 for rung in rungs]
        >>> seeds = [[gap + off for gap in curve] for off in (-0.001, 0, 0.001)]
        >>> found = healing(rungs, seeds, margin=0.005)
        >>> round(found.scar, 2), round(found.speed, 1), found.verdict
        (0.02, 1.5, 'scar')
    """
    table = np.asarray(sorted(map(list, gaps)), dtype=float)
    times = np.asarray(rungs, dtype=float) / rungs[0]
    shapes = times ** -_SPEEDS[:, None]
    mean = np.array([average(list(column)) for column in table.T])
    n, (scar, size, speed) = len(table), _fit(mean, times, shapes)
    intervals = (math.nan,) * 4
    fit_p, last_high = math.nan, math.nan
    if n > 1:
        # Of the upper and of the lower end.
        quantiles = [float(t.ppf(1 - (1 - level) / of, n - 1)) for of in (2, 2 * _STRICTER)]
        draws = np.random.default_rng(0).integers(n, size=(_RESAMPLES, n))
        scars, _, places = _fits(table[draws].mean(axis=1), shapes)
        upper, lower = (float(norm.cdf(-q * math.sqrt(n / (n - 1)))) for q in quantiles)
        ends = [*_ends(scars, lower, upper), *_ends(_SPEEDS[places], upper, upper)]
        last_high = mean[-1] + quantiles[0] * table[:, -1].std(ddof=1) / math.sqrt(n)
        tried = np.append(np.linspace(0, max(last_high, scar, _RESOLUTION), _STEPS), scar)
        # The speed of the fit among them, which lies between two of the others.
        laws = np.vstack([shapes, times**-speed])
        low, high = _by_scores(table, times, laws, quantiles, tried)
        intervals = (
            min(ends[0], low), max(ends[1], high), min(ends[2], speed), max(ends[3], speed),
        )  # fmt: skip
        fit_p = _fit_p(table, times, scar, size, speed)
    verdict = ""
    if margin is not None:
        is_law = not fit_p < 1 - level
        verdict = "scar" if is_law and intervals[0] > margin else "undecided"
        if (is_law and intervals[1] < margin) or last_high < margin:
            verdict = "lag"
    low, high, slowest, fastest = intervals
    return Healing(scar, low, high, size, speed, slowest, fastest, fit_p, verdict)


def _ends(values: Numbers, below: float, above: float) -> tuple[float, float]:
    low, high = np.quantile(values, [below, 1 - above])
    return float(low), float(high)


def _fit(mean: Numbers, times: Numbers, shapes: Numbers) -> tuple[float, float, float]:
    """Scar, size and speed of one curve by least squares, from the best of the speeds tried."""
    (scar,), (size,), (place,) = _fits(mean[None], shapes)
    found = least_squares(
        lambda law: law[0] + law[1] * times ** -law[2] - mean,
        [scar, size, _SPEEDS[place]],
        bounds=([0, 0, _SLOWEST - 1e-9], [np.inf, np.inf, _FASTEST + 1e-9]),
        xtol=1e-12, ftol=1e-12, gtol=1e-12,
    )  # fmt: skip
    scar, size, speed = map(float, found.x)
    return scar if scar > _RESOLUTION / 100 else 0.0, size, speed


def _fits(means: Numbers, shapes: Numbers) -> tuple[Numbers, Numbers, NDArray[np.intp]]:
    """Of each curve the scar, the size and the place of the speed, by least squares.

    For a given speed scar and size are those of a straight line, or of one of its bounds.
    """
    level, slope = shapes.mean(axis=1), shapes - shapes.mean(axis=1, keepdims=True)
    size = (means @ slope.T) / (slope**2).sum(axis=1)
    scar = means.mean(axis=1, keepdims=True) - size * level
    # With a bound active, the other number is fitted alone.
    alone = np.maximum(means @ shapes.T / (shapes**2).sum(axis=1), 0)
    size, scar = np.where(scar < 0, alone, size), np.maximum(scar, 0)
    flat = np.maximum(means.mean(axis=1, keepdims=True), 0)
    scar, size = np.where(size < 0, flat, scar), np.maximum(size, 0)
    fitted = scar[..., None] + size[..., None] * shapes
    place = ((means[:, None] - fitted) ** 2).sum(axis=-1).argmin(axis=1)
    rows = np.arange(len(means))
    return scar[rows, place], size[rows, place], place


def _by_scores(
    table: Numbers, times: Numbers, shapes: Numbers, quantiles: Sequence[float], scars: Numbers
) -> tuple[float, float]:
    """The least and the largest of several scars that Student's test does not reject."""
    mean = table.mean(axis=0)
    left = mean - scars[:, None]
    sizes = np.maximum(left @ shapes.T / (shapes**2).sum(axis=1), 0)
    misfits = ((left[:, None] - sizes[..., None] * shapes) ** 2).sum(axis=-1)
    places = misfits.argmin(axis=1)
    kept, scores = [], {}
    for tried, place, size in zip(scars, places, sizes[np.arange(len(scars)), places], strict=True):
        law = shapes[place]
        if place not in scores:
            ways = np.stack([law, law * np.log(times)], axis=1)
            scores[place] = _left_over(ways) @ np.ones(len(times))
        values = (table - tried - size * law) @ scores[place]
        error = values.std(ddof=1) / math.sqrt(len(table))
        # Scars that are tried too high leave less than nothing over.
        high, low = (quantile * error + _RESOLUTION / 100 for quantile in quantiles)
        if -high <= values.mean() <= low:
            kept.append(float(tried))
    # A law that is rejected with every scar says nothing of any.
    return (min(kept), max(kept)) if kept else (0.0, float(scars.max()))


def _fit_p(table: Numbers, times: Numbers, scar: float, size: float, speed: float) -> float:
    """Hotelling's test of what the law leaves over, across the directions that it can take."""
    law = times**-speed
    ways = [law, law * np.log(times), *([np.ones(len(times))] if scar > 0 else [])]
    values, directions = np.linalg.eigh(_left_over(np.stack(ways, axis=1)))
    over = (table - scar - size * law) @ directions[:, values > 0.5]
    n, k = over.shape
    if n <= k:
        return math.nan
    mean, spread = over.mean(axis=0), np.atleast_2d(np.cov(over, rowvar=False))
    spread = spread + _RESOLUTION**2 * np.eye(k)
    squared = float(n * mean @ np.linalg.solve(spread, mean))
    return float(f.sf(squared * (n - k) / (k * (n - 1)), k, n - k))


def _left_over(ways: Numbers) -> Numbers:
    """The projection on what no change along the columns of a matrix can give."""
    basis, _ = np.linalg.qr(ways)
    return np.eye(len(ways)) - basis @ basis.T


def sign_flip_p(differences: Sequence[float]) -> float:
    """The exact two-sided p value of paired differences: all 2^n flips of their signs.

    It is the share of flips whose mean is as far from 0 as the one that was measured. With n seeds
    no p is below 2 / 2^n: six are needed for 0.05. Of more than 16 seeds, flips are drawn.

    Example:
        >>> sign_flip_p([1.0, 2.0, 3.0, 4.0]), sign_flip_p([1.0, -1.0])
        (0.125, 1.0)
    """
    values, n = np.asarray(differences, dtype=float), len(differences)
    if n > _FLIPPED:
        draws = np.random.default_rng(0).choice([-1.0, 1.0], size=(2**_FLIPPED, n))
        sums = np.append(draws @ values, values.sum())
    else:
        sums = np.zeros(1)
        for value in values:
            sums = np.concatenate([sums + value, sums - value])
    return float(np.mean(abs(sums) >= abs(values.sum()) * (1 - 1e-9)))
