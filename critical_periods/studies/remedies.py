"""The table of remedies: what each regains, and what it costs a network without a deficit."""

import json
from collections.abc import Mapping, Sequence

from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan, Run
from critical_periods.studies.results import Row, settings, summary
from critical_periods.studies.schedule import Schedule
from critical_periods.studies.statistics import average
from critical_periods.studies.study_file import NO_REMEDY
from critical_periods.studies.tables import short

_MEASURE = "final_accuracy"


def remedies(folder: StudyFolder, plan: Plan, rows: Sequence[Row]) -> list[Row]:
    """One row for each removal and remedy of a study with ``recovery``; none of any other.

    Columns: ``variant`` and every varied field, ``remedy``, ``onset``, ``removal``, ``epochs``,
    ``seeds``; then, each with ``_sd``, ``_low`` and ``_high`` (95 % interval) over the seeds that
    have both runs,

    - ``lost``: the final accuracy of clean runs of the same length without a remedy, minus this;
    - ``regained``: this, minus that of the run with the deficit and without a remedy;
    - ``clean_cost``: what the remedy costs a network that had no deficit: the final accuracy of
      clean runs without it minus that of clean runs with it, begun in the same epoch.

    A remedy takes no epochs beside those that all runs have. ``epochs_to_match`` is how many it
    takes after the removal to reach, in validation, the final accuracy without a remedy: a mean
    over ``matched_seeds``, those that reach it. Where that is the accuracy of a second stage, the
    rest of the first counts, too.
    """
    if not any("remedy" in run.variation for run in plan.runs):
        return []
    found: dict[tuple[str, Schedule], dict[int, float]] = {}
    runs: dict[tuple[str, Schedule], dict[int, Run]] = {}
    for run in plan.runs:
        key = json.dumps(run.variation), run.window
        runs.setdefault(key, {})[run.seed] = run
    for (variation, window), of in runs.items():
        start = settings(next(iter(of.values())))
        alike = [row for row in rows if all(row.get(name) == start[name] for name in start)]
        by_seed = {row["seed"]: row[_MEASURE] for row in alike if _MEASURE in row}
        found[variation, window] = by_seed
    table: list[Row] = []
    for (variation, window), of in runs.items():
        if window.onset == window.removal or not found[variation, window]:
            continue
        clean = Schedule(0, 0, window.epochs)
        plain = json.dumps({**json.loads(variation), "remedy": NO_REMEDY})
        here, without = found[variation, window], found.get((plain, window), {})
        healthy = found.get((plain, clean), {})
        row: Row = {**settings(next(iter(of.values()))), "seeds": len(here)}
        row |= summary("lost", _difference(healthy, here))
        if variation != plain:
            row |= summary("regained", _difference(here, without))
            row |= summary("clean_cost", _difference(healthy, found.get((variation, clean), {})))
        epochs = {s: _matched(folder, plan, of[s], without[s]) for s in here if s in without}
        if matched := [float(one) for one in epochs.values() if one is not None]:
            row |= {"epochs_to_match": short(average(matched))}
        table.append({**row, "matched_seeds": len(matched)})
    return table


def _difference(more: Mapping[int, float], less: Mapping[int, float]) -> list[float]:
    """A difference, by the seeds that have both."""
    return [more[seed] - less[seed] for seed in more if seed in less]


def _matched(folder: StudyFolder, plan: Plan, run: Run, accuracy: float) -> int | None:
    """After how many epochs since the removal a run has reached an accuracy."""
    history, removal = folder.segment(run.segment).history(), run.window.removal
    has_second = len(plan.stages(run)) > 1
    past = run.window.epochs - removal if has_second else 0
    reached = (
        number
        for number, epoch in enumerate(history[0 if has_second else removal :], start=past + 1)
        if epoch.get("val/accuracy") and float(epoch["val/accuracy"]) >= accuracy
    )
    return next(reached, None)
