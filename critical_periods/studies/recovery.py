"""The table of a ladder: the gap at each rung, the law that it follows, and the verdict."""

import json
from collections.abc import Mapping, Sequence

from critical_periods.studies.design import Design
from critical_periods.studies.healing import healing, sign_flip_p
from critical_periods.studies.plan import Plan, Run
from critical_periods.studies.results import Row, differences, settings, summary
from critical_periods.studies.statistics import average
from critical_periods.studies.study_file import LEAST_RUNGS
from critical_periods.studies.tables import short

_MEASURE = "final_accuracy"


def recovery(plan: Plan, rows: Sequence[Row]) -> list[Row]:
    """One row for each removal and rung of a ladder; none of any other study.

    Columns: ``variant`` and every varied field, ``onset``, ``removal``, ``epochs``,
    ``epochs_after`` (the rung), ``seeds``; ``gap``, the accuracy of the clean runs of the same
    length and seeds minus that of these runs, with ``gap_sd``, ``gap_low`` and ``gap_high``. Where
    a design has a ``control``, the mean of the gap minus that of the control, by seed, is
    ``more_than_control``, and ``more_than_control_p`` its exact p value over all flips of signs
    (:func:`~critical_periods.studies.healing.sign_flip_p`).

    The columns of :class:`~critical_periods.studies.healing.Healing` are the same in all rungs of
    a removal: they are of the seeds that have every rung, and need four of these. The verdict is
    given when all runs have ended. With it stand ``margin``, ``level`` and ``design``, the hash of
    what was settled before training. Calibration seeds count in none of this.
    """
    design = plan.design
    if design is None:
        return []
    counted = [row for row in rows if row["seed"] in design.seeds]
    # One run stands for those of all seeds.
    ladders: dict[tuple[str, int], dict[int, Run]] = {}
    for run in plan.runs:
        onset, removal, epochs = run.window
        if onset < removal:
            key = json.dumps(run.variation), removal
            ladders.setdefault(key, {}).setdefault(epochs - removal, run)
    gaps = {
        key: {rung: _gaps(counted, run) for rung, run in of.items()} for key, of in ladders.items()
    }
    table: list[Row] = []
    for (variation, removal), of_rungs in ladders.items():
        found = {rung: of for rung, of in gaps[variation, removal].items() if of}
        is_done = all(_has_ended(counted, run, design.seeds) for run in of_rungs.values())
        law = _law(design, found, is_done)
        own = json.loads(variation)
        other = json.dumps({**own, "variant": design.control})
        against = gaps.get((other, removal), {}) if other != variation else {}
        for rung, by_seed in found.items():
            row: Row = {**settings(of_rungs[rung]), "epochs_after": rung, "seeds": len(by_seed)}
            row |= summary("gap", by_seed.values())
            control = against.get(rung, {})
            if more := [gap - control[seed] for seed, gap in by_seed.items() if seed in control]:
                row["more_than_control"] = short(average(more))
                row["more_than_control_p"] = short(sign_flip_p(more))
            table.append(row | law)
    return table


def _gaps(rows: Sequence[Row], run: Run) -> dict[int, float]:
    """The loss of accuracy of each seed that has both a run and its control."""
    return {seed: -value for seed, value in differences(_MEASURE, rows, settings(run)).items()}


def _has_ended(rows: Sequence[Row], run: Run, seeds: Sequence[int]) -> bool:
    """Whether the run and its control of every seed are done, or have diverged."""
    start = settings(run)
    wanted = (start, {**start, "onset": 0, "removal": 0})
    return all(
        {row["seed"] for row in rows if all(row.get(n) == one[n] for n in one)} == set(seeds)
        for one in wanted
    )


def _law(design: Design, gaps: Mapping[int, Mapping[int, float]], is_done: bool) -> Row:
    """What the gaps at the rungs of a removal tell together; a verdict where all are there."""
    seeds = set.intersection(*map(set, gaps.values())) if gaps else set()
    law: Row = {}
    if len(gaps) >= LEAST_RUNGS and seeds:
        curves = [[gap[seed] for gap in gaps.values()] for seed in sorted(seeds)]
        margin = design.margin if is_done else None
        *numbers, verdict = found = healing(list(gaps), curves, margin, design.level)
        law |= zip(found._fields, map(short, numbers), strict=False)
        law |= {"verdict": verdict} if design.margin is not None else {}
    if design.margin is not None:
        law["margin"] = design.margin
    return law | {"level": design.level, "design": design.hash}
