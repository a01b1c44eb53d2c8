"""The paths of a study's tree: segments that one job trains one after another."""

from collections.abc import Collection, Iterator
from itertools import islice

from critical_periods.studies.plan import Plan

# Slurm refuses a comment of over 1,024 characters, and a job's names its segments.
_LONGEST = 60


def paths(plan: Plan, missing: Collection[str], whole: bool = True) -> list[tuple[str, ...]]:
    """Divides the segments that are missing into paths, from the top of the tree down.

    A trunk goes on into the child with the longest way to go, and each of its other children begins
    a path of its own, which waits for the trunk's job. So a cluster's queue is waited for once for
    each branch and not once for each segment.

    Args:
        plan: of the study.
        missing: the segments to train.
        whole: whether trunks go on; without, each segment is a path.

    Returns:
        The names of each path's segments, at most 60. Paths come after the one that their parent is
        in, and otherwise the longest way to go comes first.

    Example:
        >>> from critical_periods.studies.plan import Segment
        >>> def segment(name, parent, start, stop):
        ...     return Segment(name, parent, start, stop, (0, 0), seed=0, config=0)
        >>> tree = [segment("a", None, 0, 2), segment("b", "a", 2, 4), segment("c", "a", 2, 9)]
        >>> plan = Plan("tree", [], {one.name: one for one in tree}, [], 0.01)
        >>> paths(plan, {"a", "b", "c"})
        [('a', 'c'), ('b',)]
        >>> paths(plan, {"b", "c"})
        [('c',), ('b',)]
    """
    remaining = plan.remaining()
    longest_first = sorted(
        (name for name in plan.segments if name in missing), key=lambda name: -remaining[name]
    )

    def way(top: str) -> Iterator[str]:
        yield top
        children = [name for name in longest_first if plan.segments[name].parent == top]
        if whole and children:
            yield from way(children[0])

    found: list[tuple[str, ...]] = []
    left = longest_first
    while left:
        # A parent has a longer way to go than its child, so the first one has none that is left.
        found.append(tuple(islice(way(left[0]), _LONGEST)))
        left = [name for name in left if name not in found[-1]]
    return found


def leaf_of(plan: Plan, name: str) -> str:
    """The segment that ends the path which one is in: the run that a trunk becomes a part of.

    Example:
        >>> from critical_periods.studies.plan import Segment
        >>> ends = {"a": (None, 0, 2), "b": ("a", 2, 4), "c": ("a", 2, 9)}
        >>> tree = {n: Segment(n, *of, (0, 0), seed=0, config=0) for n, of in ends.items()}
        >>> [leaf_of(Plan("tree", [], tree, [], 0.01), name) for name in tree]
        ['c', 'b', 'c']
    """
    return next(way[-1] for way in paths(plan, plan.segments) if name in way)
