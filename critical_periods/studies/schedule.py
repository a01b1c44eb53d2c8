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


Past = tuple[int, int]


def branches(
    runs: Iterable[Schedule], start: int = 0, parent: Past | None = None
) -> Iterator[tuple[Past, int, int, Past | None]]:
    """The tree of a set of runs, parents first.

    Runs stay together as long as their pasts are the same. A branch ends where one of its runs
    does, or where the deficit of one begins or ends.

    Args:
        runs: all that are the same before ``start`` and go on after it.
        start: the epoch that their branches begin in.
        parent: their past until then; ``None`` at the beginning.

    Yields:
        Of each branch its past until it ends, its first epoch, the epoch after its last, and the
        past of its parent.

    Example:
        >>> for branch in branches([Schedule(0, 2, 4), Schedule(0, 0, 4)]):
        ...     print(branch)
        ((0, 2), 0, 2, None)
        ((0, 2), 2, 4, (0, 2))
        ((0, 0), 0, 4, None)
    """
    groups: dict[tuple[int, int], list[Schedule]] = {}
    for run in runs:
        groups.setdefault(run.past(start + 1), []).append(run)
    for together in groups.values():
        ends = {end for run in together for end in (*run.past(run.epochs), run.epochs)}
        stop = min(end for end in ends if end > start)
        past = together[0].past(stop)
        yield past, start, stop, parent
        yield from branches((run for run in together if run.epochs > stop), stop, past)
