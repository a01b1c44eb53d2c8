"""The lattice of an adaptive study: the values on its axes, and its points as a fit takes them."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import qmc

from critical_periods.core.errors import UserError
from critical_periods.core.randomness import FIXED_SEED, Stream, fold
from critical_periods.studies.adaptive_settings import AdaptiveSettings, marginal
from critical_periods.studies.space import Number, Point, Space

Array = NDArray[np.float64]
Places = NDArray[np.int64]
"""Points by their places on the axes, [n, d]."""

MOST_VALUES = 41
"""Of an axis: on a lattice runs meet, and share their trunks."""
MOST_POINTS = 20_000
"""That are looked at; of a larger lattice, so many drawn at random."""
PLAIN_UP_TO = 3
"""So many axes vary at most where the kernel is plain by default: there are none to reduce."""


def space_of(
    settings: AdaptiveSettings, is_whole: Mapping[str, bool], seeds: Sequence[int]
) -> Space:
    """The space of a study file, by which of its axes are of whole numbers.

    What the file leaves out, the kernel by the number of axes that vary, is settled here.

    Raises:
        UserError: the budget is larger than the number of different runs, or nothing of the
            distribution lies on the axes.
    """
    ends = settings.axes.items()
    axes = {name: values(low, high, is_whole[name]) for name, (low, high) in ends}
    fields = settings.model_dump(include={*Space.__dataclass_fields__})
    if settings.kernel is None:
        varied = sum(len(found) > 1 for found in axes.values())
        fields["kernel"] = "plain" if varied <= PLAIN_UP_TO else "either"
    space = Space(**fields, axes=axes, seeds=tuple(seeds))
    runs = prod(map(len, axes.values())) * len(space.seeds)
    if space.budget > runs:
        raise UserError(
            f"windows.adaptive.budget is {space.budget}, but its axes and the seeds make {runs} "
            "different runs; give a smaller budget, or train a full grid."
        )
    if not np.isfinite(weights(space, places(space))).all():
        raise UserError(
            f"windows.adaptive.distribution is {space.distribution}, of which nothing lies on the "
            "axes; let them overlap."
        )
    return space


def values(low: Number, high: Number, is_whole: bool) -> list[Number]:
    """The values of an axis: at most 41, evenly spaced, the ends among them.

    Example:
        >>> values(2, 5, True), values(0, 1, False)[:3]
        ([2, 3, 4, 5], [0.0, 0.025, 0.05])
    """
    if not is_whole:
        every = np.linspace(low, high, MOST_VALUES if high > low else 1)
        return [float(f"{value:.6g}") for value in every]
    count = min(MOST_VALUES, int(high) - int(low) + 1)
    return [round(float(value)) for value in np.linspace(low, high, count)]


def places(space: Space) -> Places:
    """The points of the lattice."""
    sizes = [len(found) for found in space.axes.values()]
    every = np.arange(min(prod(sizes), MOST_POINTS))
    rng = np.random.default_rng(fold(Stream.CANDIDATES, FIXED_SEED))
    if prod(sizes) > np.iinfo(np.int64).max:
        # Points of so many axes have no numbers, and none is drawn twice.
        return np.unique(rng.integers(sizes, size=(MOST_POINTS, len(sizes))), axis=0)
    if prod(sizes) > MOST_POINTS:
        every = np.sort(rng.choice(prod(sizes), MOST_POINTS, replace=False))
    return np.stack(np.unravel_index(every, sizes), axis=1)


def unit(space: Space, points: Sequence[Point]) -> Array:
    """Points as a fit takes them, [n, axes that vary], each axis from 0 to 1."""
    table = np.array(points, dtype=float).reshape(len(points), len(space.axes))
    lows, highs = (np.array([found[end] for found in space.axes.values()]) for end in (0, -1))
    return ((table - lows) / np.where(highs > lows, highs - lows, 1))[:, highs > lows]


def weights(space: Space, of: Places) -> Array:
    """How likely each point is under the stated distribution, [n], together 1."""
    found = np.ones(len(of))
    for column, (name, on_axis) in enumerate(space.axes.items()):
        if name in space.distribution:
            found *= _shares(on_axis, space.distribution[name])[of[:, column]]
    with np.errstate(invalid="ignore"):
        return found / found.sum()


def design(space: Space) -> list[Point]:
    """The initial runs, each another: a scrambled Latin hypercube on the lattice."""
    sizes = np.array([len(found) for found in space.axes.values()])
    rng = np.random.default_rng(fold(Stream.INITIAL_DESIGN, FIXED_SEED))
    found: dict[tuple[Point, int], None] = {}
    while len(found) < space.initial:
        for draw in qmc.LatinHypercube(len(sizes), rng=rng).random(space.initial):
            # Where values are few, two draws may be the same run.
            if len(found) < space.initial:
                found[space.point((draw * sizes).astype(int)), space.seed(len(found))] = None
    return [point for point, _ in found]


def _shares(on_axis: Sequence[Number], distribution: dict[str, list[float]]) -> Array:
    """The probability of the cell round each value of an axis, its ends being those of the axis."""
    middles = [(one + other) / 2 for one, other in pairwise(on_axis)]
    edges = np.array([on_axis[0], *middles, on_axis[-1]], dtype=float)
    # Below the least value of a distribution there is nothing.
    return np.diff(np.nan_to_num(ndtr(marginal(distribution).to_normal(edges)), nan=0.0))
