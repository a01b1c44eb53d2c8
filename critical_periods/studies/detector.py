"""A detector of the end of the critical period, and what it costs to follow it."""

import math
from collections.abc import Sequence
from itertools import pairwise

from critical_periods.core.errors import UserError, near
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan
from critical_periods.studies.prediction import LEAST_SEEDS, Point, divided, named, variations
from critical_periods.studies.results import Row, summary
from critical_periods.studies.statistics import summarise
from critical_periods.studies.study_file import Ends
from critical_periods.studies.tables import short


def detections(folder: StudyFolder, plan: Plan, rows: Sequence[Row], ends: Ends) -> list[Row]:
    """One row for each variation: what a detector of the end of the critical period costs.

    In the run of each seed whose deficit lasts longest it says, after the first epoch in which the
    measure is below (``falls``) or above (``rises``) the one that was measured before, that the
    deficit is to go: at the study's first removal from then on, or its last where it never does.
    Its regret is the loss of final accuracy with that removal minus the one with the best removal,
    which has the least mean loss over the seeds that are held back, as ``study predict`` does. The
    others choose one removal for all, which is what the detector has to be compared with.

    Columns: ``variant`` and every varied field, ``measure``, ``rule``, ``held_back_seeds``,
    ``detected_removal`` (a mean), ``best_removal``, ``regret`` with ``_sd``, ``_low`` and
    ``_high``, ``fixed_removal``, ``fixed_regret``.

    Raises:
        UserError: the measure was not logged, or there are too few seeds.
    """
    table = []
    for points in variations(folder, plan, rows):
        losses: dict[int, dict[int, float]] = {}
        for one in points:
            losses.setdefault(one.seed, {})[one.removal] = one.loss
        removals = sorted(set.intersection(*({*of} for of in losses.values())))
        seeds = sorted(losses)
        if len(seeds) < LEAST_SEEDS or not removals:
            raise UserError(
                f"{named(points[0])} has {len(seeds)} seeds with all removals that are done; the "
                f"regret of a detector needs at least {LEAST_SEEDS}."
            )
        picked = {}
        for point in (one for one in points if one.removal == removals[-1]):
            # A detector is of studies whose deficits begin with the training.
            history = folder.segment(point.segment).history()[: point.removal]
            epoch = detected(_measured(history, ends.measure, point), ends.rule)
            picked[point.seed] = next((one for one in removals if one > epoch), removals[-1])
        choosing, held = divided(seeds)
        means = [
            {removal: sum(losses[seed][removal] for seed in of) for removal in removals}
            for of in (held, choosing)
        ]
        least, fixed = (min(removals, key=of.__getitem__) for of in means)
        regrets = [losses[seed][picked[seed]] - losses[seed][least] for seed in held]
        row = {**points[0].settings, "measure": ends.measure, "rule": ends.rule}
        row |= {"held_back_seeds": len(held)}
        row |= {"detected_removal": short(sum(picked[s] for s in held) / len(held))}
        row |= {"best_removal": least}
        row |= summary("regret", regrets)
        against = summarise([losses[seed][fixed] - losses[seed][least] for seed in held])
        table.append({**row, "fixed_removal": fixed, "fixed_regret": short(against.mean)})
    return table


def detected(measured: Sequence[tuple[int, float]], rule: str) -> float:
    """The first epoch in which a measure falls (or rises) below the one before; infinity if none.

    Example:
        >>> detected([(0, 1.0), (5, 3.0), (10, 2.0)], "falls"), detected([(0, 1.0)], "rises")
        (10, inf)
    """
    sign = 1 if rule == "rises" else -1
    pairs = pairwise(measured)
    return next((epoch for (_, old), (epoch, new) in pairs if sign * (new - old) > 0), math.inf)


def _measured(
    history: Sequence[dict[str, str]], measure: str, point: Point
) -> list[tuple[int, float]]:
    found = [(int(one["epoch"]), float(one[measure])) for one in history if one.get(measure)]
    if not found:
        known = [name for name in point.courses if name != "removal"]
        raise UserError(
            f"ends.measure is {measure!r}, which was not logged in {named(point)} while the "
            f"deficit was there; {near(measure, known)}"
        )
    return found
