"""When the runs of a study have their deficit, and which epochs of theirs are the same."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Schedule(NamedTuple):
    """A run of ``epochs`` with a deficit from epoch onset to removal - 1; onset = removal: none."""

    onset: int
    removal: int
    epochs: int

    def past(self, stop: int) -> tuple[int, int]:
        """Onset and removal of the deficit before an epoch; (0, 0) for none.

        Example:
            >>> Schedule(2, 6, 9).past(4), Schedule(2, 6, 9).past(2)
            ((2, 4), (0, 0))
        """
        onset, removal = self.onset, min(self.removal, stop)
        return (onset, removal) if onset < removal else (0, 0)

    @property
    def outside(self) -> int:
        """How many epochs are without the deficit.

        Example:
            >>> Schedule(2, 6, 9).outside
            5
        """
        return self.epochs - self.removal + self.onset


Past = tuple[int, int]


class Branch(NamedTuple):
    """Epochs that runs share.

    Attributes:
        past: onset and removal of the deficit until it ends.
        start: its first epoch.
        stop: the epoch after its last.
        parent: the past of what it goes on from; ``None`` at the beginning.
        cooldown: over how many epochs, its last ones, the learning rate goes to zero.
    """

    past: Past
    start: int
    stop: int
    parent: Past | None
    cooldown: int = 0


def branches(
    runs: Iterable[Schedule],
    cooldown: int = 0,
    start: int = 0,
    parent: Past | None = None,
    cuts: Iterable[int] = (),
) -> Iterator[Branch]:
    """The tree of a set of runs, parents first.

    Runs stay together as long as their pasts are the same. A branch ends where one of its runs
    does, or where the deficit of one begins or ends. With a cooldown, of so many epochs after its
    deficit, each run leaves the others that long before its end.

    Args:
        runs: all that are the same before ``start`` and go on after it.
        cooldown: over how many epochs the learning rate of each run goes to zero at its end.
        start: the epoch that their branches begin in.
        parent: their past until then; ``None`` at the beginning.
        cuts: epochs in which a branch ends although its runs go on alike, as others leave it there.

    Example:
        >>> for branch in branches([Schedule(0, 2, 4), Schedule(0, 0, 4)]):
        ...     print(*branch)
        (0, 2) 0 2 None 0
        (0, 2) 2 4 (0, 2) 0
        (0, 0) 0 4 None 0
        >>> for branch in branches([Schedule(0, 0, 4), Schedule(0, 0, 6)], cooldown=1):
        ...     print(*branch)
        (0, 0) 0 3 None 0
        (0, 0) 3 4 (0, 0) 1
        (0, 0) 3 5 (0, 0) 0
        (0, 0) 5 6 (0, 0) 1
    """
    groups: dict[tuple[Past, int | None], list[Schedule]] = {}
    for run in runs:
        alone = run.epochs if start >= run.epochs - cooldown else None
        groups.setdefault((run.past(start + 1), alone), []).append(run)
    for (_, alone), together in groups.items():
        ends = {end for run in together for end in run.past(run.epochs)}
        ends |= {end for run in together for end in (run.epochs - cooldown, run.epochs)} | {*cuts}
        stop = min(end for end in ends if end > start)
        past = together[0].past(stop)
        yield Branch(past, start, stop, parent, 0 if alone is None else cooldown)
        later = (run for run in together if run.epochs > stop)
        yield from branches(later, cooldown, stop, past, cuts)
