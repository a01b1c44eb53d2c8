"""The paths of a study's tree: segments that one job trains one after another."""

from collections.abc import Collection

from critical_periods.studies.plan import Plan


def paths(
    plan: Plan, missing: Collection[str], whole: bool = True, longest: int | None = None
) -> list[tuple[str, ...]]:
    """Divides the segments that are missing into paths, from the top of the tree down.

    A trunk goes on into the child with the longest way to go, and each of its other children begins
    a path of its own, which waits for the trunk's job. So a cluster's queue is waited for once for
    each branch and not once for each segment.

    Args:
        plan: of the study.
        missing: the segments to train.
        whole: whether trunks go on; without, each segment is a path.
        longest: how many segments a path may have; a longer one goes on in another.

    Returns:
        The names of each path's segments. Paths come after the one that their parent is in, and
        otherwise the longest way to go comes first.

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
    goes_on_into: dict[str | None, str] = {}
    for name in longest_first:
        goes_on_into.setdefault(plan.segments[name].parent, name)
    found: list[tuple[str, ...]] = []
    taken: set[str] = set()
    # A parent has a longer way to go than its child, so it comes before it.
    for top in longest_first:
        if top not in taken:
            way = [top]
            while whole and way[-1] in goes_on_into and len(way) != longest:
                way.append(goes_on_into[way[-1]])
            found.append(tuple(way))
            taken.update(way)
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
