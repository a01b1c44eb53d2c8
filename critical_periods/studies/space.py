"""Where an adaptive study looks: its axes, the values on them, and what a run there costs."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from critical_periods.core.errors import UserError
from critical_periods.core.randomness import FIXED_SEED, Stream, fold
from critical_periods.studies.adaptive_settings import AdaptiveSettings, marginal
from critical_periods.studies.schedule import Schedule

Array = NDArray[np.float64]
Number = int | float
Point = tuple[Number, ...]
"""A deficit: its onset, its length and its values on the further axes."""

MOST_VALUES = 41
"""Of an axis: on a lattice runs meet, and share their trunks."""
MOST_CANDIDATES = 20_000
"""Points of the lattice that are looked at; of a larger one, so many drawn at random."""
# Settings that change nothing before the deficit, so that runs share their trunks and controls.
_OF_WINDOW = ("deficit.", "window.")


@dataclass(frozen=True)
class Space:
    """The deficits that an adaptive study asks about, and how.

    Attributes:
        axes: the values on each, in order: ``onset``, ``length``, and settings by their names.
        epochs: of each run.
        threshold: the loss from which on a network is impaired.
        budget: how many runs with a deficit at most.
        initial: how many of them begin it.
        batch: how many follow in each round.
        kernel: ``deep`` or ``plain``.
        distribution: of the axes that are not uniform.
        seeds: which runs take in turn.
    """

    axes: dict[str, list[Number]]
    epochs: int
    threshold: float
    budget: int
    initial: int
    batch: int
    kernel: str
    distribution: dict[str, dict[str, list[float]]]
    seeds: tuple[int, ...]

    @classmethod
    def of(
        cls, settings: AdaptiveSettings, is_whole: Mapping[str, bool], seeds: Sequence[int]
    ) -> Self:
        """The space of a study file, by which of its axes are of whole numbers."""
        axes = {name: values(*ends, is_whole[name]) for name, ends in settings.axes.items()}
        fields = settings.model_dump(include={*cls.__dataclass_fields__})
        space = cls(**fields, axes=axes, seeds=tuple(seeds))
        runs = prod(map(len, axes.values())) * len(space.seeds)
        if space.budget > runs:
            raise UserError(
                f"windows.adaptive.budget is {space.budget}, but its axes and the seeds make "
                f"{runs} different runs; give a smaller budget, or train a full grid."
            )
        if not np.isfinite(space.weights(space.places())).all():
            raise UserError(
                f"windows.adaptive.distribution is {space.distribution}, of which nothing lies on "
                "the axes; let them overlap."
            )
        return space

    def is_of(self, settings: AdaptiveSettings, seeds: Sequence[int]) -> bool:
        """Whether it is what a study file says."""
        ends = {name: [found[0], found[-1]] for name, found in self.axes.items()}
        fields = settings.model_dump(include={*self.__dataclass_fields__})
        same = all(getattr(self, name) == value for name, value in fields.items())
        return same and ends == settings.axes and self.seeds == tuple(seeds)

    @property
    def varied(self) -> list[str]:
        """The axes of more than one value."""
        return [name for name, found in self.axes.items() if len(found) > 1]

    def places(self) -> NDArray[np.int64]:
        """The points of the lattice by their places on the axes, [n, d]."""
        sizes = [len(found) for found in self.axes.values()]
        every = np.arange(prod(sizes))
        if len(every) > MOST_CANDIDATES:
            rng = np.random.default_rng(fold(Stream.CANDIDATES, FIXED_SEED))
            every = np.sort(rng.choice(len(every), MOST_CANDIDATES, replace=False))
        return np.stack(np.unravel_index(every, sizes), axis=1)

    def point(self, places: Sequence[int] | NDArray[np.int64]) -> Point:
        """The point at these places on the axes."""
        pairs = zip(self.axes.values(), places, strict=True)
        return tuple(found[place] for found, place in pairs)

    def unit(self, points: Sequence[Point]) -> Array:
        """Points as a fit takes them, [n, varied axes], each axis from 0 to 1."""
        table = np.array(points, dtype=float).reshape(len(points), len(self.axes))
        lows, highs = (np.array([found[end] for found in self.axes.values()]) for end in (0, -1))
        return ((table - lows) / np.where(highs > lows, highs - lows, 1))[:, highs > lows]

    def weights(self, places: NDArray[np.int64]) -> Array:
        """How likely each place is under the stated distribution, [n], together 1."""
        found = np.ones(len(places))
        for column, (name, on_axis) in enumerate(self.axes.items()):
            if name in self.distribution:
                found *= _shares(on_axis, self.distribution[name])[places[:, column]]
        with np.errstate(invalid="ignore"):
            return found / found.sum()

    def design(self) -> list[Point]:
        """The initial runs: a scrambled Latin hypercube on the lattice."""
        from scipy.stats import qmc

        sizes = np.array([len(found) for found in self.axes.values()])
        rng = np.random.default_rng(fold(Stream.INITIAL_DESIGN, FIXED_SEED))
        found: dict[tuple[Point, int], None] = {}
        while len(found) < self.initial:
            for draw in qmc.LatinHypercube(len(sizes), rng=rng).random(self.initial):
                # Where values are few, two draws may be the same run.
                seed = self.seed(len(found))
                if len(found) < self.initial:
                    found.setdefault((self.point((draw * sizes).astype(int)), seed))
        return [point for point, _ in found]

    def seed(self, number: int) -> int:
        """Of a run by its number in the order of all: seeds take turns."""
        return self.seeds[number % len(self.seeds)]

    def window(self, point: Point) -> Schedule:
        """When the deficit of a point is there."""
        onset, length = int(point[0]), int(point[1])
        return Schedule(onset, onset + length, self.epochs)

    def variation(self, point: Point) -> dict[str, Any]:
        """The settings of a point beside its window."""
        return dict(zip([*self.axes][2:], point[2:], strict=True))


class Trained:
    """At which epochs runs have left checkpoints, and so what another run would train."""

    def __init__(self, space: Space) -> None:
        self.space = space
        shares = [name.startswith(_OF_WINDOW) for name in [*space.axes][2:]]
        self._apart = [place + 2 for place, shared in enumerate(shares) if not shared]
        self._trunks: dict[Any, set[int]] = defaultdict(lambda: {0})
        self._windows: dict[Any, set[int]] = defaultdict(set)
        self._new: set[Any] = set()

    def price(self, point: Point, seed: int) -> int:
        """The epochs that a run trains anew, with its control; 0 if it is trained."""
        (onset, removal, epochs), trunk, window = self._keys(point, seed)
        ends = self._windows[window]
        if removal in ends:
            return 0
        cuts = self._trunks[trunk]
        price = epochs - max([onset, *(end for end in ends if end < removal)])
        if epochs not in cuts:
            return price + epochs
        # Its control is trained in this very round, and may stop on the way.
        return price + (0 if trunk in self._new else onset - max(e for e in cuts if e <= onset))

    def add(self, point: Point, seed: int) -> int:
        """Takes a run in; what it trains."""
        price = self.price(point, seed)
        (onset, removal, epochs), trunk, window = self._keys(point, seed)
        if epochs not in self._trunks[trunk]:
            self._new.add(trunk)
        self._trunks[trunk] |= {onset, epochs}
        self._windows[window].add(removal)
        return price

    def end_round(self) -> None:
        """What was taken in up to now is trained."""
        self._new.clear()

    def _keys(self, point: Point, seed: int) -> tuple[Schedule, Any, Any]:
        trunk = (seed, *(point[place] for place in self._apart))
        return self.space.window(point), trunk, (seed, point[0], *point[2:])


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


def _shares(on_axis: Sequence[Number], distribution: dict[str, list[float]]) -> Array:
    """The probability of the cell round each value of an axis, its ends being those of the axis."""
    from scipy.special import ndtr

    middles = [(one + other) / 2 for one, other in pairwise(on_axis)]
    edges = np.array([on_axis[0], *middles, on_axis[-1]], dtype=float)
    # Below the least value of a distribution there is nothing.
    return np.diff(np.nan_to_num(ndtr(marginal(distribution).to_normal(edges)), nan=0.0))
