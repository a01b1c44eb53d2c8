"""From runs to a tree of segments: what runs share is trained once."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from pydantic import TypeAdapter

from critical_periods.plots.labels import label_of
from critical_periods.studies.configs import Config
from critical_periods.studies.design import Design
from critical_periods.studies.schedule import Schedule, branches
from critical_periods.studies.space import Space

# A plan is read where there is no torch, too; classes are looked at where it is made.
if TYPE_CHECKING:
    from critical_periods.studies.names import Resolved
    from critical_periods.studies.study import Study


@dataclass(frozen=True)
class Segment:
    """A stretch of epochs of one branch of a study.

    Attributes:
        name: the hash of all that determines the bits of its end.
        parent: the segment whose checkpoint it starts from, from which fine-tuning takes the
            network's weights alone; ``None`` starts from scratch.
        start: its first epoch.
        stop: the epoch after its last.
        window: onset and removal of the window within its past and itself; equal: none.
        seed: of the run.
        config: which of the plan's configs.
        finetunes: whether it is a run's second stage, whose epochs are counted anew.
        cooldown: over how many epochs, its last ones, the learning rate goes to zero.
    """

    name: str
    parent: str | None
    start: int
    stop: int
    window: tuple[int, int]
    seed: int
    config: int
    finetunes: bool = False
    cooldown: int = 0

    @property
    def epochs_text(self) -> str:
        """Its stage and epochs, as trees and W&B show them."""
        cooldown = ", cooldown" if self.cooldown else ""
        return f"{'fine-tuning, ' * self.finetunes}epochs {self.start}-{self.stop}{cooldown}"


@dataclass(frozen=True)
class Run:
    """One row of the results: a window of one seed and variation, and the last segment of it."""

    variation: dict[str, Any]
    window: Schedule
    seed: int
    segment: str


@dataclass(frozen=True)
class Plan:
    """Everything that workers need: configs, the tree of segments, and the runs they make up.

    Attributes:
        study: its name.
        configs: one run's config and its window's callback for each variation, then the second
            stage's, which has no window, and those of remedies by the epoch in which they begin.
        segments: by name; parents come before their children.
        runs: the rows of the results.
        threshold: the loss of final accuracy at which a critical period is said to begin.
        log_artifacts: whether checkpoints, plan and tables go to Weights & Biases, too.
        kind: :attr:`kind_of_window`, by the classes; plans of version 0.1 do not have it.
        design: of a ladder, ``None`` of any other study.
        registered: the design that there was as training of the seeds that count began.
        adaptive: where a study looks that chooses its runs itself, ``None`` of any other.
    """

    study: str
    configs: list[tuple[Config, Config]]
    segments: dict[str, Segment]
    runs: list[Run]
    threshold: float
    log_artifacts: bool = False
    kind: str | None = None
    design: Design | None = None
    registered: Design | None = None
    adaptive: Space | None = None

    @property
    def design_changes(self) -> str:
        """How the design was changed after training had begun; '' where it was not."""
        if self.design is None or self.registered is None:
            return ""
        return self.registered.changes(self.design)

    @property
    def epochs(self) -> int:
        """Epochs that the tree trains."""
        return sum(segment.stop - segment.start for segment in self.segments.values())

    @property
    def separate_epochs(self) -> int:
        """Epochs that separate runs would train."""
        return sum(self.segments[name].stop for run in self.runs for _, name in self.stages(run))

    @property
    def kind_of_window(self) -> str:
        """``deficit`` where each variation's window is one, otherwise ``window``."""
        if self.kind is not None:
            return self.kind
        others = [one for _, one in self.configs if one and one["class_path"] != "DeficitWindow"]
        if not others:
            return "deficit"
        from critical_periods.studies.roles import said_by

        return "deficit" if {said_by(one, "kind") for one in others} <= {"deficit"} else "window"

    def add(self, segment: Segment) -> None:
        """Takes a segment in, unless it is there."""
        self.segments.setdefault(segment.name, segment)

    def stages(self, run: Run) -> list[tuple[str, str]]:
        """The stages of a run and the segments that end them; one without a name if there is one.

        Example:
            >>> window = Schedule(0, 0, 4)
            >>> first = Segment("a", None, 0, 4, (0, 0), seed=0, config=0)
            >>> second = Segment("b", "a", 0, 2, (0, 0), seed=0, config=1, finetunes=True)
            >>> run = Run({}, window, 0, "b")
            >>> Plan("two", [], {"a": first, "b": second}, [run], 0.01).stages(run)
            [('pretraining', 'a'), ('finetuning', 'b')]
        """
        last = self.segments[run.segment]
        if not last.finetunes or last.parent is None:
            return [("", run.segment)]
        return [("pretraining", last.parent), ("finetuning", run.segment)]

    def lineage(self, name: str) -> Iterator[Segment]:
        """A segment and its ancestors, the youngest first."""
        yield (segment := self.segments[name])
        if segment.parent is not None:
            yield from self.lineage(segment.parent)

    def remaining(self) -> dict[str | None, int]:
        """Epochs from each segment's first to the end of its longest run; ``None``: of all."""
        remaining: dict[str | None, int] = dict.fromkeys([None, *self.segments], 0)
        for name, segment in reversed(self.segments.items()):
            remaining[name] += segment.stop - segment.start
            remaining[segment.parent] = max(remaining[segment.parent], remaining[name])
        return remaining

    def labels(self) -> dict[str, str]:
        """What sets a segment apart by settings: a variant, varied values; '' where runs share it.

        Example:
            >>> window = Schedule(0, 1, 2)
            >>> trunk = Segment("a", None, 0, 1, (0, 1), seed=0, config=0)
            >>> branch = Segment("b", "a", 1, 2, (0, 1), seed=0, config=1)
            >>> runs = [Run({"x.lr": 0.1}, window, 0, "a"), Run({"x.lr": 0.2}, window, 0, "b")]
            >>> Plan("two", [], {"a": trunk, "b": branch}, runs, 0.01).labels()
            {'a': '', 'b': 'lr = 0.2'}
        """
        found: dict[str, set[str]] = {name: set() for name in self.segments}
        for run in self.runs:
            found[run.segment].add(label_of(run.variation))
        for name, segment in reversed(self.segments.items()):
            if segment.parent is not None:
                found[segment.parent] |= found[name]
        return {name: of.pop() if len(of) == 1 else "" for name, of in found.items()}

    def to_json(self) -> str:
        """The plan as text, the same for the same study."""
        return json.dumps(self, default=vars, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The plan of a text that :meth:`to_json` made; ValueError of any other."""
        return TypeAdapter(cls).validate_json(text)


def make_plan(
    study: "Study", resolved: "list[Resolved]", finetuning: "Sequence[Resolved]" = ()
) -> Plan:
    """Merges the runs of a study into a tree.

    Runs and second stages are those of :func:`~critical_periods.studies.resolve.resolve`.
    """
    from critical_periods.studies.names import SegmentNames

    configs = [study.configured(variation) for variation in study.variations]
    stages = [study.configured_finetuning(variation) for variation in study.variations]
    configs += [(stage, {}) for stage in stages if stage is not None]
    plan = Plan(study.name, configs, {}, [], study.threshold, study.log_artifacts)
    second = [SegmentNames(stage) for stage in finetuning]
    beginnings = [
        (number, start, windows)
        for number, variation in enumerate(study.variations)
        for start, windows in study.remedied(variation).items()
    ]
    for number, start, windows in beginnings:
        variation, found, config = study.variations[number], resolved[number], number
        if remedy := study.recovery.get(variation.remedy):
            found, config = found.with_remedy(len(remedy), start), len(configs)
            configs.append(_with_remedy(configs[number], remedy, start))
        names = SegmentNames(found)
        tree = list(branches(windows, study.cooldown, cuts=study.cuts))
        lasts = [(window, window.past(window.epochs)) for window in windows]
        for seed in study.seeds:
            for past, start, stop, before, cooldown in tree:
                parent = None if before is None else names.name(seed, before, start)
                name = names.name(seed, past, stop, cooldown)
                plan.add(Segment(name, parent, start, stop, past, seed, config, cooldown=cooldown))
            for window, past in lasts:
                last = names.name(seed, past, window.epochs, study.cooldown)
                if finetuning:
                    past, stage = plan.segments[last].window, finetuning[number]
                    stop = stage.config["trainer"]["max_epochs"]
                    place = len(study.variations) + number
                    name = second[number].name(seed, (0, 0), stop, weights=last)
                    plan.add(Segment(name, last, 0, stop, past, seed, place, finetunes=True))
                    last = name
                plan.runs.append(Run(variation.columns, window, seed, last))
    kind = plan.kind_of_window
    if study.design is None:
        return replace(plan, kind=kind)
    design = study.design.of(run.segment for run in plan.runs)
    return replace(plan, kind=kind, design=design, registered=design)


def _with_remedy(
    config: tuple[Config, Config], remedy: Sequence[Config], start: int
) -> tuple[Config, Config]:
    from critical_periods.studies.remedy import begun

    run, window = config
    trainer = {**run["trainer"], "callbacks": run["trainer"]["callbacks"] + begun(remedy, start)}
    return {**run, "trainer": trainer}, window
