"""From finished segments to the table of runs and the table of the curve."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.plan import Plan, Run
from critical_periods.studies.schedule import Schedule
from critical_periods.studies.statistics import critical_removal, summarise

FINAL_EPOCHS = 5
"""Final accuracy is the mean over this many last epochs (Kleinman et al. 2023)."""

# Columns of the results and the logged keys that they come from; * stands for a layer.
_MEASURES = {
    "rsv_mean": "rsv/*/mean",
    "rsv_polarization": "rsv/*/polarization",
    "rsv_dead": "rsv/*/dead",
    "rsv_channels_mean": "rsv/*/channels/mean",
    "rsv_channels_polarization": "rsv/*/channels/polarization",
    "fisher_trace": "fisher/trace",
    "information_both": "information/both",
    "information_view_0": "information/view_0",
    "information_view_1": "information/view_1",
    "information_weights": "information/weights",
    "reconstruction_own_view": "reconstruction/own_view",
    "reconstruction_other_view": "reconstruction/other_view",
    "reconstruction_both_views": "reconstruction/both_views",
    "error": "val/error",
    "path_share": "modes/share",
}
_BEFORE = "pretrained_"
_MEASURES_BEFORE = {"loss": "val/loss", **_MEASURES}
_MEANT = ("final_accuracy", *_MEASURES, *(_BEFORE + name for name in _MEASURES_BEFORE))


def results(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row for each run that is done.

    Columns: ``study``, every varied field, ``onset``, ``removal``, ``epochs``, ``seed``;
    ``final_accuracy``, the mean of the validation accuracies in the run's last five epochs (of the
    test split, unless ``val_split`` holds training images back; a run that validates less often has
    fewer of them); and what the monitors measured in its last epoch: ``rsv_mean``,
    ``rsv_polarization``, … (of the first layer that is monitored), ``fisher_trace``,
    ``information_both``, …. Where fine-tuning ends the runs, these are of its last epochs, and
    ``pretrained_loss``, ``pretrained_rsv_mean``, … of the last one before it. A
    run with onset = removal had no deficit: it is the control of the windows that are as many
    epochs long.
    """
    rows = []
    for run in plan.runs:
        folder = study.segment(run.segment)
        if folder.is_done():
            *before, history = [study.segment(name).history() for _, name in plan.stages(run)]
            row = _row(plan, run, history)
            for pretraining in before:
                measured = _measured(pretraining[-1], _MEASURES_BEFORE)
                row |= {f"{_BEFORE}{name}": value for name, value in measured.items()}
            rows.append(row)
    return rows


def _row(plan: Plan, run: Run, history: list[dict[str, str]]) -> dict[str, Any]:
    row: dict[str, Any] = {"study": plan.study, **cells(run.variation), **run.window._asdict()}
    row["seed"] = run.seed
    # Not every task names things, and not every run validates after each epoch.
    accuracies = [epoch.get("val/accuracy") for epoch in history[-FINAL_EPOCHS:]]
    measured = [float(accuracy) for accuracy in accuracies if accuracy]
    if measured:
        row["final_accuracy"] = short(mean(measured))
    return row | _measured(history[-1], _MEASURES)


def _measured(epoch: dict[str, str], measures: Mapping[str, str]) -> dict[str, float]:
    found = {column: _find(epoch, key) for column, key in measures.items()}
    return {column: short(float(value)) for column, value in found.items() if value is not None}


def cells(variation: dict[str, Any]) -> dict[str, Any]:
    """Varied values as a table holds them: those that are fields or lists themselves as JSON."""
    return {
        name: json.dumps(value) if isinstance(value, (dict, list)) else value
        for name, value in variation.items()
    }


def _find(row: dict[str, str], key: str) -> str | None:
    before, star, after = key.partition("*")
    for name, value in row.items():
        is_key = name == key if not star else name.startswith(before) and name.endswith(after)
        is_channels = "/channels/" in name.removeprefix(before)
        if is_key and value and ("channels" in key or not is_channels):
            return value
    return None


def short(number: float) -> float:
    """Six significant digits, which is what tables hold."""
    return float(f"{number:.6g}")


def curve(plan: Plan, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
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
    """
    shortest = min(run.window.epochs for run in plan.runs)
    windows: dict[str, dict[Schedule, Run]] = {}
    for run in plan.runs:
        windows.setdefault(json.dumps(run.variation), {})[run.window] = run
    table: list[dict[str, Any]] = []
    for of_variation in windows.values():
        points, differences = [], {}
        for window, run in of_variation.items():
            # The shortest control is the curve's own first point: a deficit of no epochs.
            if window.onset == window.removal and window.epochs != shortest:
                continue
            variation = cells(run.variation)
            here = _by_seed(rows, variation, window._asdict())
            if not here:
                continue
            control = _by_seed(rows, variation, {"onset": 0, "removal": 0, "epochs": window.epochs})
            line: dict[str, Any] = {**variation, **window._asdict(), "seeds": len(here)}
            for measure in _MEANT:
                line |= _statistics(measure, here, control)
            points.append(line)
            differences[window.removal] = _difference("final_accuracy", here, control)
        # By the plan: of a study of onsets, those that are done may all be 0.
        has_removals = all(window.onset == 0 for window in of_variation)
        if has_removals and plan.kind_of_window == "deficit":
            fit = _critical_removal(differences, plan.threshold)
            points = [point | fit for point in points]
        table += points
    return table


def _by_seed(rows: Sequence[dict[str, Any]], *wanted: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {
        row["seed"]: row
        for row in rows
        if all(row.get(name) == value for part in wanted for name, value in part.items())
    }


def _statistics(
    measure: str, here: dict[int, dict[str, Any]], control: dict[int, dict[str, Any]]
) -> dict[str, float]:
    groups = {
        measure: _values(measure, here),
        f"{measure}_control": _values(measure, control),
        f"{measure}_difference": _difference(measure, here, control),
    }
    columns = {}
    for name, group in groups.items():
        if group:
            average, *spread = summarise(list(group.values()))
            columns[name] = short(average)
            for ending, number in zip(("sd", "low", "high"), spread, strict=True):
                columns[f"{name}_{ending}"] = short(number)
    return columns


def _values(measure: str, rows: dict[int, dict[str, Any]]) -> dict[int, float]:
    return {seed: row[measure] for seed, row in rows.items() if measure in row}


def _difference(
    measure: str, here: dict[int, dict[str, Any]], control: dict[int, dict[str, Any]]
) -> dict[int, float]:
    """Run minus control, of the seeds that have both."""
    values, baseline = _values(measure, here), _values(measure, control)
    return {seed: values[seed] - baseline[seed] for seed in values if seed in baseline}


def _critical_removal(
    differences: dict[int, dict[int, float]], threshold: float
) -> dict[str, float]:
    """The fitted beginning of the critical period, by the seeds that have every removal.

    None from less than three removals, between which the fit would be a guess.
    """
    removals = sorted(differences)
    seeds = {seed for of_removal in differences.values() for seed in of_removal}
    losses = [
        [-differences[removal][seed] for removal in removals]
        for seed in sorted(seeds)
        if all(seed in of_removal for of_removal in differences.values())
    ]
    if len(removals) < 3 or not losses:
        return {}
    names = ("critical_removal", "critical_removal_low", "critical_removal_high")
    numbers = critical_removal(removals, losses, threshold)
    return {"threshold": threshold} | dict(zip(names, map(short, numbers), strict=True))
