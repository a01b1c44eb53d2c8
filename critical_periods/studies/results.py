"""From finished segments to the table of runs and the table of the curve."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from critical_periods.studies import configs
from critical_periods.studies.divergence import diverged_in
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan, Run
from critical_periods.studies.schedule import Schedule
from critical_periods.studies.statistics import average, critical_removal, summarise
from critical_periods.studies.tables import short

FINAL_EPOCHS = 5
"""Final accuracy is the mean over this many last epochs (Kleinman et al. 2023)."""

# Logged keys, after which columns of the results are called; * is the first layer that has one.
_KEYS = (
    "rsv/*/mean", "rsv/*/polarization", "rsv/*/dead", "rsv/*/channels/mean",
    "rsv/*/channels/polarization", "fisher/trace", "information/both", "information/view_0",
    "information/view_1", "information/weights", "reconstruction/own_view",
    "reconstruction/other_view", "reconstruction/both_views", "robustness/mean",
    "robustness/noise", "robustness/blur", "robustness/contrast", "robustness/pixelation",
)  # fmt: skip
_MEASURES = {key.replace("/*/", "/").replace("/", "_"): key for key in _KEYS}
_MEASURES |= {"error": "val/error", "path_share": "modes/share", "success": "val/success"}
_AGENT = ("policy_dormant", "critic_dormant", "critic_fisher")
_MEASURES |= {name: f"agent/{name}" for name in _AGENT}
_BEFORE = {f"pretrained_{name}": key for name, key in {"loss": "val/loss", **_MEASURES}.items()}
_GROUPS = ("", "_control", "_difference")
_ENDS = ("", "_sd", "_low", "_high")
_MEANT = ("final_accuracy", "success_area", *_MEASURES, *_BEFORE)

Row = dict[str, Any]


def results(study: StudyFolder, plan: Plan) -> list[Row]:
    """One row for each run that is done or has diverged.

    Columns: ``study``, every varied field, ``onset``, ``removal``, ``epochs``, ``seed``;
    ``final_accuracy``, the mean of the validation accuracies in the run's last five epochs (of the
    test split, unless ``val_split`` holds training images back; a run that validates less often has
    fewer of them; of a rung of a ladder, whose rate has gone to zero, it is the last one); and what
    the monitors measured in its last epoch: ``rsv_mean``, ``rsv_polarization``, … (of the first
    layer that is monitored), ``fisher_trace``, ``information_both``, …. An agent has ``success`` of
    its last validation and ``success_area``, the mean over all. Where fine-tuning ends the runs,
    these are of its last epochs, and ``pretrained_loss``, ``pretrained_rsv_mean``, … of the last
    one before it. A
    run with onset = removal had no deficit: it is the control of the windows that are as many
    epochs long. Of a run that has diverged nothing is known but ``diverged_epoch``, the epoch in
    which its loss or weights were no longer finite; there is no such column where none has.
    """
    rows: list[Row] = []
    for _, run, diverged in ended(study, plan):
        if diverged is not None:
            rows.append({"study": plan.study, **known(run), "diverged_epoch": diverged})
            continue
        *before, history = [study.segment(name).history() for _, name in plan.stages(run)]
        row = {"study": plan.study, **known(run)}
        # Not every task logs an accuracy, and not every run validates after each epoch.
        last = FINAL_EPOCHS if plan.design is None else 1
        accuracies = [epoch.get("val/accuracy") for epoch in history[-last:]]
        if any(accuracies):
            row["final_accuracy"] = short(average(list(map(float, filter(None, accuracies)))))
        if successes := [float(one["val/success"]) for one in history if one.get("val/success")]:
            row["success_area"] = short(average(successes))
        row |= _measured(history[-1], _MEASURES)
        for pretraining in before:
            row |= _measured(pretraining[-1], _BEFORE)
        rows.append(row)
    return rows


def ended(study: StudyFolder, plan: Plan) -> Iterator[tuple[int, Run, int | None]]:
    """The runs with a row: their places in the plan, and the epoch in which one diverged."""
    for place, run in enumerate(plan.runs):
        stages = [name for _, name in plan.stages(run)]
        epochs = (diverged_in(study, plan, name) for name in stages)
        diverged = next((epoch for epoch in epochs if epoch is not None), None)
        if diverged is not None or study.segment(run.segment).is_done():
            yield place, run, diverged


def settings(run: Run, stage: str = "") -> Row:
    """What rows of a run begin with: varied fields, ``stage`` where there are two, and window.

    Varied values that are fields or lists themselves are written as JSON.
    """
    varied = {
        name: json.dumps(value) if isinstance(value, (dict, list)) else value
        for name, value in run.variation.items()
    }
    return {**varied, **({"stage": stage} if stage else {}), **run.window._asdict()}


def known(run: Run, stage: str = "") -> Row:
    """What says which run a row is of."""
    return {**settings(run, stage), "seed": run.seed}


def _measured(epoch: Mapping[str, str], measures: Mapping[str, str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for column, pattern in measures.items():
        for key, value in epoch.items():
            if value and _is_of(pattern, key):
                found.setdefault(column, short(float(value)))
    return found


@cache
def _is_of(pattern: str, key: str) -> bool:
    return re.fullmatch(pattern.replace("*", "[^/]+"), key) is not None


def curve(plan: Plan, rows: Sequence[Row]) -> list[Row]:
    """One row for each window with its matched control: the statistics over seeds.

    Columns: ``variant`` and every varied field, ``onset``, ``removal``, ``epochs``, ``seeds``; for
    each measure its mean ``<measure>``, ``<measure>_sd`` (sample standard deviation),
    ``<measure>_low`` and ``<measure>_high`` (95 % interval of the mean); the same four of the
    ``<measure>_control``, the runs without a deficit of as many epochs; and of the
    ``<measure>_difference``, run minus control of the same seed. Where the deficit is there from
    the start and at least three removals are done (of which 0 is one): ``critical_removal``,
    ``critical_removal_low``, ``critical_removal_high``, the removal at which the loss of final
    accuracy passes ``threshold`` (:func:`~critical_periods.studies.statistics.critical_removal`).
    Two removals give a straight line, whatever happens between them, and the window of a study
    whose window is no deficit (its plan's ``kind_of_window``) begins no critical period.
    Of a ``SourceWindow`` there are ``final_accuracy_target``, the runs on the target alone of as
    many epochs on it, and ``final_accuracy_target_difference``, likewise.
    Statistics are over the seeds that have not diverged; ``diverged_seeds`` is the number of those
    that have, in a study that has any.
    """
    shortest = min(run.window.epochs for run in plan.runs)
    variations: dict[str, dict[Schedule, Run]] = {}
    for run in plan.runs:
        variations.setdefault(json.dumps(run.variation), {})[run.window] = run
    has_diverged = any("diverged_epoch" in row for row in rows)
    is_pretraining = any(configs.is_pretraining(window) for _, window in plan.configs)
    table, of = [], _Rows(rows)
    for windows in variations.values():
        points: list[Row] = []
        lost: dict[int, dict[int, dict[int, float]]] = {}
        for window, run in windows.items():
            # The shortest control is the curve's own first point: a deficit of no epochs.
            if window.onset == window.removal and window.epochs != shortest:
                continue
            start = settings(run)
            here, diverged = of.by_seed(start)
            if not here and not diverged:
                continue
            control, _ = of.by_seed({**start, "onset": 0, "removal": 0})
            point: Row = {**start, "seeds": len(here)}
            for measure in _MEANT:
                groups = _groups(measure, here, control)
                for group, values in zip(_GROUPS, groups, strict=True):
                    point |= summary(f"{measure}{group}", values.values())
            if is_pretraining and window.onset < window.removal:
                # On the target alone, for as many epochs on it.
                rest = {"onset": 0, "removal": 0, "epochs": window.outside}
                alone, _ = of.by_seed({**start, **rest})
                of_target = _groups("final_accuracy", here, alone)[1:]
                for group, values in zip(("", "_difference"), of_target, strict=True):
                    point |= summary(f"final_accuracy_target{group}", values.values())
            # Each rung of a ladder is a curve, and a deficit of no epochs a point of all of them.
            rungs: Sequence[int] = [window.epochs - window.removal if plan.design else 0]
            if plan.design and window.removal == 0:
                rungs = plan.design.epochs_after
            for rung in rungs if here else ():
                of_rung = lost.setdefault(rung, {})
                of_rung[window.removal] = _groups("final_accuracy", here, control)[-1]
            points.append(point | ({"diverged_seeds": len(diverged)} if has_diverged else {}))
        # By the plan: of a study of onsets, those that are done may all be 0.
        if all(window.onset == 0 for window in windows) and plan.kind_of_window == "deficit":
            fits = {rung: _critical_removal(of, plan.threshold) for rung, of in lost.items()}
            points = [
                point | fits.get(point["epochs"] - point["removal"] if plan.design else 0, {})
                for point in points
            ]
        table += points
    return table


def summary(name: str, values: Collection[float]) -> dict[str, float]:
    """Columns of a table: the mean over seeds, its spread and interval; none of no seed.

    Example:
        >>> summary("gap", [0.25, 0.25])
        {'gap': 0.25, 'gap_sd': 0.0, 'gap_low': 0.25, 'gap_high': 0.25}
    """
    if not values:
        return {}
    names = (f"{name}{end}" for end in _ENDS)
    return dict(zip(names, map(short, summarise(list(values))), strict=True))


def differences(measure: str, rows: Sequence[Row], start: Row) -> dict[int, float]:
    """A measure of the runs with some settings minus that of their controls, by seed."""
    of = _Rows(rows)
    here, _ = of.by_seed(start)
    control, _ = of.by_seed({**start, "onset": 0, "removal": 0})
    return _groups(measure, here, control)[-1]


def marked(plan: Plan, rows: Sequence[Row]) -> list[Row]:
    """The rows of a table, which say so where the design was changed after training had begun."""
    changes = plan.design_changes
    return [{**row, "design_changed": changes} if changes else row for row in rows]


class _Rows:
    """Rows of runs, found by their settings without looking at all of them each time."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self._by: dict[tuple[str, ...], dict[tuple[Any, ...], list[Row]]] = {}

    def by_seed(self, wanted: Row) -> tuple[dict[int, Row], list[Row]]:
        """The rows of a window by their seeds, and those that have diverged."""
        names = (*wanted,)
        if names not in self._by:
            self._by[names] = defaultdict(list)
            for row in self._rows:
                self._by[names][(*map(row.get, names),)].append(row)
        found = self._by[names].get((*wanted.values(),), [])
        diverged = [row for row in found if "diverged_epoch" in row]
        return {row["seed"]: row for row in found if "diverged_epoch" not in row}, diverged


def _groups(
    measure: str, here: Mapping[int, Row], control: Mapping[int, Row]
) -> tuple[dict[int, float], dict[int, float], dict[int, float]]:
    """A measure, that of the controls, and the difference in the seeds that have both."""
    values, baseline = (
        {seed: row[measure] for seed, row in of.items() if measure in row} for of in (here, control)
    )
    return values, baseline, {s: values[s] - baseline[s] for s in values if s in baseline}


def _critical_removal(
    differences: Mapping[int, Mapping[int, float]], threshold: float
) -> dict[str, float]:
    """The fitted beginning of the critical period, by the seeds that have every removal."""
    removals = sorted(differences)
    # Between two the fit would be a guess.
    if len(removals) < 3:
        return {}
    seeds = set.intersection(*map(set, differences.values()))
    losses = [[-differences[removal][seed] for removal in removals] for seed in seeds]
    losses = [loss for loss in losses if all(map(math.isfinite, loss))]
    if not losses:
        return {}
    names = ("critical_removal", "critical_removal_low", "critical_removal_high")
    numbers = critical_removal(removals, losses, threshold)
    return {"threshold": threshold} | dict(zip(names, map(short, numbers), strict=True))
