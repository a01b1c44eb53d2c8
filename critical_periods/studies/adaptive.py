"""An adaptive study: its rounds, and the plan of what they have chosen."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from importlib.util import find_spec
from typing import Any

from critical_periods.core.errors import UserError
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.lattice import design, space_of
from critical_periods.studies.names import Resolved, is_of_training
from critical_periods.studies.plan import Plan, Segment, make_plan
from critical_periods.studies.resolve import resolve
from critical_periods.studies.results import results
from critical_periods.studies.rounds import (
    RECORD,
    Chosen,
    Fit,
    Round,
    read_record,
    write_record,
)
from critical_periods.studies.space import Trained
from critical_periods.studies.study import Study, Variation


class Rounds:
    """Chooses the runs of an adaptive study, round after round, and plans them.

    What was chosen is kept in ``adaptive.json``. It follows from the finished runs alone, so that
    a study that was killed chooses the same, whether the record was written or not. All methods
    refuse a folder that was planned by another kernel, where the study file leaves that out.

    Args:
        study: with ``windows.adaptive``.

    Raises:
        UserError: gpytorch is missing, the run has no such axis or does not take its ends, or the
            budget is larger than the number of different runs.
    """

    def __init__(self, study: Study) -> None:
        if find_spec("gpytorch") is None:
            raise UserError(
                "windows.adaptive needs gpytorch, which is not installed; "
                "pip install 'critical-periods[adaptive]'."
            )
        assert study.adaptive is not None
        self.study = study
        self._resolved: dict[str, tuple[list[Resolved], list[Resolved]]] = {}
        self.space = space_of(study.adaptive, self._are_whole(), study.seeds)
        trained, points = Trained(self.space), design(self.space)
        seeds = [self.space.seed(number) for number in range(len(points))]
        pairs = zip(points, seeds, strict=True)
        self._first = Round(tuple(Chosen(*pair, trained.add(*pair)) for pair in pairs))
        first = self._plan([self._first])
        of = asdict(replace(self.space, budget=0)), [run.segment for run in first.runs]
        self._key = hashlib.sha256(json.dumps(of).encode()).hexdigest()[:16]

    def plan(self, folder: StudyFolder | None) -> Plan:
        """The runs that are chosen up to now, those of the initial design at least."""
        return self._plan(self._read(folder))

    def take_up(self, folder: StudyFolder, before: Plan | None) -> None:
        """Has the record say nothing of other settings, and of no end that was by another budget.

        Args:
            folder: of the study.
            before: the plan that was last run there, if there is one.

        Raises:
            UserError: the record cannot be written.
        """
        record = read_record(folder)
        with folder.writing():
            if record is not None and record.key != self._key:
                (folder.path / RECORD).unlink()
            elif record is not None and (before is None or before.adaptive != self.space):
                write_record(folder, self._key, self._read(folder))

    def advance(self, folder: StudyFolder) -> Plan | None:
        """The plan with the next round; ``None`` if runs are missing, or none is to come.

        That round, or what ends the study, is in the record then.
        """
        from critical_periods.studies.impairment import losses, next_runs, posterior, stands

        rounds = self._read(folder)
        plan, runs = self._plan(rounds), [run for one in rounds for run in one.runs]
        lost = losses(self.space, results(folder, plan), runs)
        if len(lost) < len(runs):
            return None
        found = posterior(self.space, runs, lost, rounds[-1].fit)
        left = self.space.budget - len(runs)
        past: list[Fit] = [one.fit for one in rounds if one.fit is not None]
        following, why = Round((), found.fit), "The budget is spent."
        if stands([*past, found.fit]):
            why = "The boundary stands."
        elif left > 0:
            count = min(self.space.batch, left)
            following, why = next_runs(found, self.space, rounds, count), ""
        chosen = len(following.runs)
        if chosen:
            # Before the record, as whoever is killed in between chooses the same again.
            plan = self._plan([*rounds, following])
            folder.write_plan(plan)
        write_record(folder, self._key, [*rounds, following])
        why = why or (f"{chosen} more are trained." if chosen else "All runs are trained.")
        print(f"After {len(runs)} runs {found.fit.sentence}. {why}", flush=True)
        return plan if chosen else None

    def _read(self, folder: StudyFolder | None) -> list[Round]:
        """The rounds of these settings in the record that have runs; else the initial design."""
        if folder is not None:
            self._refuse_another_kernel(folder)
        record = None if folder is None else read_record(folder)
        rounds = record.rounds if record is not None and record.key == self._key else ()
        return [one for one in rounds if one.runs] or [self._first]

    def _refuse_another_kernel(self, folder: StudyFolder) -> None:
        """Refuses what was planned by another kernel than one that the study file leaves out.

        Its choices would be lost for a default, which was another once.
        """
        assert self.study.adaptive is not None
        planned = None
        with suppress(UserError, OSError):  # Missing or damaged, it says nothing of what is here.
            planned = folder.read_plan().adaptive
        if planned is None or self.study.adaptive.kernel is not None:
            return
        same = replace(self.space, budget=planned.budget, kernel=planned.kernel) == planned
        if same and planned.kernel != self.space.kernel:
            raise UserError(
                f"{folder.path} was planned with windows.adaptive.kernel={planned.kernel}, but the "
                f"study file has none, which is {self.space.kernel} for its axes; set it to go on, "
                "or choose another --output."
            )

    def _plan(self, rounds: Iterable[Round]) -> Plan:
        """The tree of all their runs and controls."""
        windows: dict[str, tuple[Variation, int, list[Any]]] = {}
        for run in (run for one in rounds for run in one.runs):
            fields = self.space.variation(run.point)
            variation = Variation(fields, fields)
            key = json.dumps([variation.fields, run.seed])
            found = windows.setdefault(key, (variation, run.seed, []))
            found[-1].append(self.space.window(run.point))
        # The study's own window is the control.
        parts = [
            make_plan(
                replace(
                    self.study, variations=(variation,), seeds=(seed,),
                    windows=tuple(dict.fromkeys([*of, *self.study.windows])),
                ),
                *self._resolve(variation),
            )
            for variation, seed, of in windows.values()
        ]  # fmt: skip
        return replace(_joined(parts), adaptive=self.space)

    def _resolve(self, variation: Variation) -> tuple[list[Resolved], list[Resolved]]:
        key = json.dumps(variation.fields)
        if key not in self._resolved:
            self._resolved[key] = resolve(replace(self.study, variations=(variation,)))
        return self._resolved[key]

    def _are_whole(self) -> dict[str, bool]:
        """Whether each axis is of whole numbers; UserError if the run does not take its ends."""
        assert self.study.adaptive is not None
        ends = self.study.adaptive.axes
        found = dict.fromkeys(self.study.adaptive.WINDOW, True)
        further = {name: low for name, (low, _) in ends.items() if name not in found}
        for name in further:
            if not is_of_training(name):
                raise UserError(
                    f"windows.adaptive.{name} is no axis, as it says where a run is trained or how "
                    "it is observed; give it one value, in set."
                )
            for end in ends[name]:
                try:
                    resolved = self._resolve(Variation({}, further | {name: end}))
                    value = _setting(name, *resolved)
                except UserError as error:
                    raise UserError(f"windows.adaptive.{name}: {error}") from error
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise UserError(
                        f"windows.adaptive.{name} is {value!r} in the run; an axis must be a "
                        "setting that is a number."
                    )
                found[name] = found.get(name, True) and isinstance(value, int)
        return found


def _setting(name: str, runs: Sequence[Resolved], stages: Sequence[Resolved]) -> Any:
    """What a setting has become in a run, by its name with dots."""
    first, *rest = name.split(".")
    run = runs[0]
    at: Any = {
        "deficit": (run.window.get("init_args") or {}).get("deficit"),
        "window": run.window,
        "finetuning": stages[0].config if stages else None,
    }.get(first, run.config.get(first))
    for part in rest:
        if not isinstance(at, dict) or part not in at:
            raise UserError(f"the run has no setting {name!r}.")
        at = at[part]
    return at


def _joined(parts: Sequence[Plan]) -> Plan:
    """The plans of several variations and seeds as one, in which they share their controls.

    What runs without a deficit has left off at in one part, another goes on from: the name of a
    segment is that of its end, from wherever it was trained.
    """
    joined = replace(parts[0], configs=[], segments={}, runs=[])
    ends: dict[str, dict[int, Segment]] = {}
    for part in parts:
        moved = len(joined.configs)
        joined.configs.extend(part.configs)
        joined.runs.extend(part.runs)
        segments = [replace(one, config=one.config + moved) for one in part.segments.values()]
        (_, control), *_ = part.stages(part.runs[-1])
        way = {one.name for one in part.lineage(control)}
        for segment in segments:
            if segment.name in way:
                ends.setdefault(control, {}).setdefault(segment.stop, segment)
            else:
                joined.add(segment)
    first: dict[str, Segment] = {}
    for of in ends.values():
        start, parent = 0, None
        for stop in sorted(of):
            first[of[stop].name] = replace(of[stop], start=start, parent=parent)
            start, parent = stop, of[stop].name
    return replace(joined, segments=first | joined.segments)
