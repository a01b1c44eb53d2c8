"""The rows of the table of ``bench.py``, and taking times in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

Work = Callable[[], Any]


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        what: is measured.
        peer: what it is compared with.
        ratios: of each round.
        limit: of the median.
        at_least: whether it is to be at least that, or at most.
    """

    what: str
    peer: str
    ratios: Sequence[float]
    limit: float
    at_least: bool = True

    def cells(self) -> list[object]:
        middle = median(self.ratios)
        met = middle >= self.limit if self.at_least else middle <= self.limit
        ends = (f"{one:.3g}" for one in (middle, min(self.ratios), max(self.ratios)))
        sign = "at least" if self.at_least else "at most"
        return [self.what, self.peer, *ends, len(self.ratios), f"{sign} {self.limit:g}", met]


def seconds(work: Work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def in_turns(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, round by round, after a first one that warms up."""
    taken = [{name: seconds(work) for name, work in works.items()} for _ in range(rounds + 1)]
    return {name: [one[name] for one in taken[1:]] for name in works}


def ratios(taken: dict[str, list[float]], of: str, by: str) -> list[float]:
    return [one / other for one, other in zip(taken[of], taken[by], strict=True)]
