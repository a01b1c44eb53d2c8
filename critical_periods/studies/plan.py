"""From runs to a tree of segments: what runs share is trained once."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, NamedTuple

import critical_periods
from critical_periods.plots.labels import label_of
from critical_periods.studies.study import Study, Tree, Window

# What a run is watched with, and where, changes none of its bits; max_epochs is in the schedule.
_TRAINER_IGNORED = {
    "default_root_dir", "enable_autolog_hparams", "enable_checkpointing", "enable_model_summary",
    "enable_progress_bar", "log_every_n_steps", "logger", "max_epochs", "model_registry",
    "num_sanity_val_steps", "profiler",
}  # fmt: skip
_WATCHERS = {
    "DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary",
    "RichModelSummary", "RichProgressBar", "TQDMProgressBar",
}  # fmt: skip
# Windows that change nothing while they are closed: what comes before them is any run's.
_INERT = {"DeficitWindow", "SubsetWindow"}
# Windows in which something is missing; in others something may act, such as a regulariser.
_DEFICITS = {"DeficitWindow", "FreezeWindow", "SubsetWindow"}
# The data itself is in the name by its fingerprint; where it lies is not.
_DATA_IGNORED = {"device_resident", "download", "root"}


class Resolved(NamedTuple):
    """A config with every default filled in.

    Attributes:
        config: of a run.
        window: the callback that its deficit comes and goes with; empty where it has none.
        data: the hash of the data.
    """

    config: Tree
    window: Tree
    data: str


@dataclass(frozen=True)
class Segment:
    """A stretch of epochs of one branch of a study.

    Attributes:
        name: the hash of all that determines the bits of its end.
        parent: the segment whose checkpoint it starts from; ``None`` starts from scratch.
            Fine-tuning takes its network's weights alone.
        start: its first epoch.
        stop: the epoch after its last.
        window: onset and removal of the window within its past and itself; equal: none.
        seed: of the run.
        config: which of the plan's configs.
        finetunes: whether it is a run's second stage, whose epochs are counted anew.
    """

    name: str
    parent: str | None
    start: int
    stop: int
    window: tuple[int, int]
    seed: int
    config: int
    finetunes: bool = False


@dataclass(frozen=True)
class Run:
    """One row of the results: a window of one seed and variation, and the segment that ends it.

    Where the run has a second stage, that is its last segment.
    """

    variation: dict[str, Any]
    window: Window
    seed: int
    segment: str


@dataclass(frozen=True)
class Plan:
    """Everything that workers need: configs, the tree of segments, and the runs they make up.

    Attributes:
        study: its name.
        configs: one run's config and its window's callback for each variation, then the second
            stage's, which has no window.
        segments: by name; parents come before their children.
        runs: the rows of the results.
        threshold: the loss of final accuracy at which a critical period is said to begin.
    """

    study: str
    configs: list[tuple[Tree, Tree]]
    segments: dict[str, Segment]
    runs: list[Run]
    threshold: float

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
        """What tables, trees and figures call what comes and goes in the study.

        ``deficit`` where every variation's is one, otherwise ``window``, which is true of all.
        """
        callbacks = [window["class_path"] for _, window in self.configs if window]
        is_deficit = all(name.rsplit(".", 1)[-1] in _DEFICITS for name in callbacks)
        return "deficit" if is_deficit else "window"

    def stages(self, run: Run) -> list[tuple[str, str]]:
        """The stages of a run and the segments that end them; one without a name if there is one.

        Example:
            >>> window = Window(0, 0, 4)
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
        link: str | None = name
        while link is not None:
            yield self.segments[link]
            link = self.segments[link].parent

    def labels(self) -> dict[str, str]:
        """What sets a segment apart by settings: a variant, varied values; '' where runs share it.

        Example:
            >>> window = Window(0, 1, 2)
            >>> trunk = Segment("a", None, 0, 1, (0, 1), seed=0, config=0)
            >>> branch = Segment("b", "a", 1, 2, (0, 1), seed=0, config=1)
            >>> runs = [Run({"x.lr": 0.1}, window, 0, "a"), Run({"x.lr": 0.2}, window, 0, "b")]
            >>> Plan("two", [], {"a": trunk, "b": branch}, runs, 0.01).labels()
            {'a': '', 'b': 'lr = 0.2'}
        """
        found: dict[str, set[str]] = {name: set() for name in self.segments}
        for run in self.runs:
            for segment in self.lineage(run.segment):
                found[segment.name].add(label_of(run.variation))
        return {name: of.pop() if len(of) == 1 else "" for name, of in found.items()}

    def to_json(self) -> str:
        """The plan as text, the same for the same study."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan of a text that :meth:`to_json` made."""
        tree = json.loads(text)
        segments = {
            name: Segment(**{**segment, "window": tuple(segment["window"])})
            for name, segment in tree["segments"].items()
        }
        runs = [Run(**{**run, "window": Window(*run["window"])}) for run in tree["runs"]]
        configs = [(config, window) for config, window in tree["configs"]]
        return cls(tree["study"], configs, segments, runs, tree["threshold"])


def make_plan(study: Study, resolved: list[Resolved], finetuning: Sequence[Resolved] = ()) -> Plan:
    """Merges the runs of a study into a tree.

    Args:
        study: what to run.
        resolved: each variation's config and window with all defaults filled in.
        finetuning: each variation's second stage, if there is one.
    """
    configs = [study.configured(variation) for variation in study.variations]
    stages = [study.configured_finetuning(variation) for variation in study.variations]
    configs += [(stage, {}) for stage in stages if stage is not None]
    plan = Plan(study.name, configs, {}, [], study.threshold)
    for number, variation in enumerate(study.variations):
        for seed in study.seeds:
            name = partial(_name, resolved[number], seed)
            for part in _branches(study.windows):
                segment = Segment(
                    name((part.onset, part.removal), part.stop),
                    None if part.parent is None else name(part.parent[:2], part.parent[2]),
                    part.start,
                    part.stop,
                    (part.onset, part.removal),
                    seed,
                    number,
                )
                plan.segments.setdefault(segment.name, segment)
            for window in study.windows:
                last = name(_past(window, window.epochs), window.epochs)
                if finetuning:
                    place = len(study.variations) + number
                    stage = _finetuning(plan.segments[last], finetuning[number], place)
                    last = plan.segments.setdefault(stage.name, stage).name
                plan.runs.append(Run(variation.columns, window, seed, last))
    return plan


def _finetuning(parent: Segment, stage: Resolved, config: int) -> Segment:
    epochs = stage.config["trainer"]["max_epochs"]
    name = _name(stage, parent.seed, (0, 0), epochs, parent.name)
    return Segment(name, parent.name, 0, epochs, parent.window, parent.seed, config, finetunes=True)


@dataclass(frozen=True)
class _Part:
    onset: int
    removal: int
    start: int
    stop: int
    parent: tuple[int, int, int] | None


def _branches(windows: Iterable[Window]) -> list[_Part]:
    """The tree of a set of windows, parents first.

    Runs stay together as long as their pasts are the same. A branch ends where one of its runs
    does, or where the deficit of one begins or ends.
    """
    parts: list[_Part] = []

    def grow(runs: list[Window], start: int, parent: tuple[int, int, int] | None) -> None:
        groups: dict[tuple[int, int], list[Window]] = {}
        for run in runs:
            groups.setdefault(_past(run, start + 1), []).append(run)
        for together in groups.values():
            events = {run.epochs for run in together}
            events |= {epoch for run in together for epoch in (run.onset, run.removal)
                       if run.onset < run.removal and start < epoch < run.epochs}  # fmt: skip
            stop = min(events)
            past = _past(together[0], stop)
            parts.append(_Part(*past, start, stop, parent))
            longer = [run for run in together if run.epochs > stop]
            if longer:
                grow(longer, stop, (*past, stop))

    grow(list(windows), 0, None)
    return parts


def _past(window: Window, stop: int) -> tuple[int, int]:
    """The part of a deficit window that lies before an epoch; (0, 0) for none."""
    onset, removal = window.onset, min(window.removal, stop)
    return (onset, removal) if onset < removal else (0, 0)


def without_watchers(callbacks: Iterable[Tree]) -> list[Tree]:
    """Callbacks without those that only watch and without deficit windows.

    A segment has neither in its name: windows are in its schedule.
    """
    ignored = {"DeficitWindow", *_WATCHERS}
    return [one for one in callbacks if one["class_path"].rsplit(".", 1)[-1] not in ignored]


def _name(
    resolved: Resolved, seed: int, window: tuple[int, int], stop: int, weights: str | None = None
) -> str:
    callback = resolved.window
    # Without a deficit so far, it is the same whatever deficit may come.
    is_inert = not callback or callback["class_path"].rsplit(".", 1)[-1] in _INERT
    is_same = window[0] == window[1] and is_inert
    schedule = None if is_same else {"window": window, "callback": callback}
    determinants: dict[str, Any] = {
        "config": _without_what_is_to_come(resolved.config, window, stop),
        "seed": seed,
        "schedule": schedule,
        "stop": stop,
        "data": resolved.data,
        "version": critical_periods.__version__,
    }
    if weights is not None:
        determinants["weights"] = weights
    text = json.dumps(determinants, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_what_is_to_come(config: Tree, window: tuple[int, int], stop: int) -> Tree:
    """A run's settings without what only watches, and without restarts that have not come yet."""
    config = _without_what_only_watches(config)
    callbacks = config["trainer"]["callbacks"]
    removals = [window[1]] if window[0] < window[1] else []
    # Any other window may be what a restart waits for.
    removals += [0 for one in callbacks if (one.get("init_args") or {}).get("removal") is not None]

    def is_to_come(callback: Tree) -> bool:
        if callback["class_path"].rsplit(".", 1)[-1] != "LearningRateRestart":
            return False
        epoch = (callback.get("init_args") or {}).get("epoch")
        due = removals if epoch is None else [epoch]
        return all(first >= stop for first in due)

    config["trainer"]["callbacks"] = [one for one in callbacks if not is_to_come(one)]
    return config


def _without_what_only_watches(config: Tree) -> Tree:
    config = copy.deepcopy(config)
    config.pop("seed_everything", None)
    trainer = config["trainer"]
    for setting in _TRAINER_IGNORED:
        trainer.pop(setting, None)
    trainer["callbacks"] = without_watchers(trainer["callbacks"])
    settings = config["data"].get("init_args", {})
    for setting in _DATA_IGNORED:
        settings.pop(setting, None)
    return config
