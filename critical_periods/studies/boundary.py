"""The tables of an adaptive study: its rounds, and the boundary that they have found."""

from collections.abc import Sequence

import numpy as np

from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.impairment import TWO_SIDED, impaired, losses, posterior
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import Row
from critical_periods.studies.rounds import read_record
from critical_periods.studies.space import Space
from critical_periods.studies.tables import short

# Of an axis beyond the plane: its ends and its middle.
_PANELS = (0.0, 0.5, 1.0)


def adaptive(folder: StudyFolder, plan: Plan, results: Sequence[Row]) -> list[Row]:
    """A row a run with a deficit, in the order in which they were chosen, by the results.

    Columns: ``round`` (0: the initial design) and ``run``, the axes (``onset``, ``length`` and the
    further ones), ``seed``; ``epochs``, which it trained anew when it was chosen, with its control;
    ``predicted_loss`` and ``predicted_sd``, before it was trained, the noise of seeds included, and
    ``predicted_impaired``, the probability of a loss above the threshold; ``loss`` and ``impaired``
    (0 or 1), after. Calibration: ``z``, the error in predicted standard deviations, and
    ``covered``, the share of predictions up to here whose 95 % interval held the loss. Of the
    round, once it is finished: ``probability`` of impairment under the stated distribution of
    deficits, with ``probability_low`` and ``probability_high``. Of a run that has diverged there
    is no loss.
    """
    space, record = plan.adaptive, read_record(folder)
    if space is None or record is None:
        return []
    rounds = record.rounds
    runs = [(number, run) for number, one in enumerate(rounds) for run in one.runs]
    lost = losses(space, results, [run for _, run in runs])
    rows: list[Row] = []
    held: list[bool] = []
    for place, (number, run) in enumerate(runs):
        row: Row = {"round": number, "run": place}
        row |= dict(zip(space.axes, run.point, strict=True))
        row |= {"seed": run.seed, "epochs": run.epochs}
        loss = lost[place] if place < len(lost) else None
        row |= dict.fromkeys(("predicted_loss", "predicted_sd", "predicted_impaired"))
        row |= {"loss": loss, "impaired": None if loss is None else int(loss > space.threshold)}
        row |= {"z": None, "covered": None}
        if run.loss is not None and run.sd is not None:
            chance = impaired(np.array([run.loss]), np.array([run.sd]), space.threshold)
            row |= {"predicted_loss": run.loss, "predicted_sd": run.sd}
            row["predicted_impaired"] = short(float(chance[0]))
            if loss is not None:
                row["z"] = short((loss - run.loss) / run.sd)
                held.append(abs(row["z"]) <= TWO_SIDED)
                row["covered"] = short(sum(held) / len(held))
        after = rounds[number + 1].fit if number + 1 < len(rounds) else None
        if after is not None:
            row |= {"probability": after.impaired}
            row |= {"probability_low": after.low, "probability_high": after.high}
        rows.append(row)
    return rows


def boundary(folder: StudyFolder, plan: Plan, results: Sequence[Row]) -> list[Row]:
    """What the finished runs say of the loss over the plane of the first two axes that vary.

    A row a point: the axes; ``loss`` (mean over seeds, as it is expected), ``loss_sd`` and
    ``impaired``, the probability that it lies above the ``threshold``. A third axis that varies is
    at its ends and its middle, any others at their middle.
    """
    space, record = plan.adaptive, read_record(folder)
    if space is None or record is None:
        return []
    runs = [run for one in record.rounds for run in one.runs]
    lost = losses(space, results, runs)
    fits = [one.fit for one in record.rounds if one.fit is not None]
    # Without a fit the initial design has not finished; nor has it, where runs were damaged since.
    if not fits or len(lost) < len(record.rounds[0].runs):
        return []
    found = posterior(space, runs[: len(lost)], lost, fits[-1], _plane(space))
    rows = []
    for place, mean, sd in zip(found.places, found.mean, found.sd, strict=True):
        row: Row = dict(zip(space.axes, space.point(place), strict=True))
        chance = float(impaired(mean, sd, space.threshold))
        row |= {"loss": short(float(mean)), "loss_sd": short(float(sd)), "impaired": short(chance)}
        rows.append(row | {"threshold": space.threshold})
    return rows


def _plane(space: Space) -> np.ndarray:
    """The places of the points that are drawn, [n, d]."""
    varied, on_axes = space.varied, []
    for name, found in space.axes.items():
        if name in varied[:2]:
            on_axes.append(np.arange(len(found)))
        elif name in varied[2:3]:
            on_axes.append(np.unique([round(end * (len(found) - 1)) for end in _PANELS]))
        else:
            on_axes.append(np.array([len(found) // 2]))
    return np.stack(np.meshgrid(*on_axes, indexing="ij"), axis=-1).reshape(-1, len(on_axes))
