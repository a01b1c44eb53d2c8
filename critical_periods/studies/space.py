"""Where an adaptive study looks, and what a run there costs."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from critical_periods.studies.adaptive_settings import AdaptiveSettings
from critical_periods.studies.schedule import Schedule

Number = int | float
Point = tuple[Number, ...]
"""A deficit: its onset, its length and its values on the further axes."""

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
        kernel: ``deep``, ``plain`` or ``either``.
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

    def is_of(self, settings: AdaptiveSettings, seeds: Sequence[int]) -> bool:
        """Whether it is what a study file says, whatever that leaves out."""
        ends = {name: [found[0], found[-1]] for name, found in self.axes.items()}
        fields = settings.model_dump(include={*self.__dataclass_fields__}, exclude_none=True)
        same = all(getattr(self, name) == value for name, value in fields.items())
        return same and ends == settings.axes and self.seeds == tuple(seeds)

    @property
    def varied(self) -> list[str]:
        """The axes of more than one value."""
        return [name for name, found in self.axes.items() if len(found) > 1]

    def point(self, places: Iterable[int]) -> Point:
        """The point at these places on the axes."""
        pairs = zip(self.axes.values(), places, strict=True)
        return tuple(found[place] for found, place in pairs)

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
        # Of each trunk and deficit those of earlier rounds, and of this one.
        self._before: dict[Any, set[int]] = defaultdict(set)
        self._now: dict[Any, set[int]] = defaultdict(set)

    def price(self, point: Point, seed: int) -> int:
        """The epochs that a run trains anew, with its control; 0 if it is trained."""
        (onset, removal, epochs), trunk, deficit = self._keys(point, seed)
        if removal in self._before[deficit] | self._now[deficit]:
            return 0
        control = self._reach(trunk, 0, epochs)
        # A control that is to be trained leaves a checkpoint at the onset on its way.
        start = 0 if control else self._reach(trunk, 0, onset)
        return control + start + self._reach(deficit, onset, removal) + epochs - removal

    def add(self, point: Point, seed: int) -> int:
        """Takes a run in; what it trains."""
        price = self.price(point, seed)
        (onset, removal, epochs), trunk, deficit = self._keys(point, seed)
        self._now[trunk] |= {onset, epochs}
        self._now[deficit].add(removal)
        return price

    def end_round(self) -> None:
        """What was taken in up to now is trained."""
        for key, ends in self._now.items():
            self._before[key] |= ends
        self._now.clear()

    def _reach(self, key: Any, start: int, epoch: int) -> int:
        """How many epochs lead to one from the last checkpoint before it."""
        before, now = {start, *self._before[key]}, self._now[key]
        last = max(one for one in before if one <= epoch)
        # One that this round trains across it stops there on the way.
        if any(epoch <= one and not before & {*range(last + 1, one + 1)} for one in now):
            return 0
        return epoch - max([last, *(one for one in now if one <= epoch)])

    def _keys(self, point: Point, seed: int) -> tuple[Schedule, Any, Any]:
        trunk = (seed, *(point[place] for place in self._apart))
        return self.space.window(point), trunk, (seed, "deficit", point[0], *point[2:])
