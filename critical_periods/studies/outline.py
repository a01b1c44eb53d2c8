"""The tree of a plan as text, a line for each segment."""

from collections import Counter, defaultdict
from collections.abc import Mapping

from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan, Segment
from critical_periods.studies.schedule import Schedule, branches


def outline(
    plan: Plan, folder: StudyFolder | None = None, queue: Mapping[str, str] | None = None
) -> str:
    """The tree as text; with a folder, the state of each segment too.

    ``queue`` says of some segments what a cluster's queue knows, such as ``queued (Priority)``.

    Example:
        >>> from critical_periods.studies.plan import Segment
        >>> trunk = Segment("a", None, 0, 2, (0, 2), seed=0, config=0)
        >>> branch = Segment("b", "a", 2, 4, (0, 2), seed=0, config=0)
        >>> print(outline(Plan("small", [], {"a": trunk, "b": branch}, [], 0.01)))
        a  epochs 0-2, deficit 0-2, seed 0
          b  epochs 2-4, deficit 0-2
        small: 0 runs in 2 segments; trains 4 epochs, separate runs would train 0.
    """
    what, labels = plan.kind_of_window, plan.labels()
    failures = {} if folder is None else folder.failures(plan)
    lines: list[str] = []
    counts: Counter[str] = Counter()
    children: dict[str | None, list[Segment]] = defaultdict(list)
    for segment in plan.segments.values():
        children[segment.parent].append(segment)

    def grow(parent: str | None, depth: int) -> None:
        for segment in children[parent]:
            onset, removal = segment.window
            parts = [
                f"{'  ' * depth}{segment.name}  {segment.epochs_text}",
                f"{what} {onset}-{removal}" if onset < removal else f"no {what}",
                labels[segment.name],
                f"seed {segment.seed}" if depth == 0 else "",
            ]
            line = ", ".join(filter(None, parts))
            if folder is not None:
                one = folder.segment(segment.name)
                state = text = one.state()
                if state not in ("done", "failed") and segment.name in (queue or {}):
                    text = (queue or {})[segment.name]
                    state = text.partition(" ")[0]
                if state == "running" and (reached := one.epochs_done()) is not None:
                    text += f", epoch {reached} of {segment.stop}"
                counts[state] += 1
                failed = None if state == "done" else failures.get(segment.name)
                line += f"  [{text}{_why(folder, segment.name, failed)}]"
            lines.append(line)
            grow(segment.name, depth + 1)

    grow(None, 0)
    lines.append(
        f"{plan.study}: {len(plan.runs)} runs in {len(plan.segments)} segments; trains "
        f"{plan.epochs} epochs, separate runs would train {plan.separate_epochs}."
    )
    lines += _ladder(plan) + _adaptive(plan)
    if counts:
        lines.append(", ".join(f"{counts[state]} {state}" for state in sorted(counts)) + ".")
    return "\n".join(lines)


def _ladder(plan: Plan) -> list[str]:
    """For each removal of a ladder, what its rungs train beside the longest of them alone."""
    found: list[str] = []
    design = plan.design
    if design is None:
        return found
    for removal in design.removal:
        schedules = [Schedule(0, removal, removal + rung) for rung in design.epochs_after]
        tree = branches(schedules, design.cooldown)
        total, longest = sum(one.stop - one.start for one in tree), schedules[-1].epochs
        found.append(
            f"Removal {removal}: the ladder of {len(schedules)} rungs trains {total} epochs a "
            f"seed, its longest rung alone {longest} ({total / longest:.2f} times)."
        )
    return found


def _adaptive(plan: Plan) -> list[str]:
    """What is known beforehand of a study that chooses its runs itself."""
    space = plan.adaptive
    if space is None:
        return []
    ends = [f"{name} {of[0]} to {of[-1]}" for name, of in space.axes.items()]
    drawn = [f"{name} {of}" for name, of in space.distribution.items()] or ["uniform"]
    return [
        f"Adaptive: {', '.join(ends)}; impaired is a loss above {space.threshold}. {space.initial} "
        f"runs with a deficit begin it, then {space.batch} at a time are chosen from what those "
        f"before have given, {space.budget} at most. Distribution of deficits: {', '.join(drawn)}."
    ]


def _why(folder: StudyFolder, name: str, failed: str | None) -> str:
    """What is behind the state of a segment that is not done: a divergence, a parent's failure."""
    if failed == name:
        epoch = folder.segment(name).diverged_in()
        return "" if epoch is None else f": diverged in epoch {epoch}"
    return "" if failed is None else f": goes on from {failed}, which failed"
