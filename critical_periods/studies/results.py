"""From finished segments to the table of runs and the table of the curve."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from statistics import mean
from typing import Any

from critical_periods.studies.folder import StudyFolder, read_table
from critical_periods.studies.statistics import critical_removal, summarise
from critical_periods.studies.tree import Plan, Run

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
}
_MEANT = ("final_accuracy", *_MEASURES)


def results(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """One row for each run that is done.

    Columns: ``study``, every varied field, ``onset``, ``removal``, ``epochs``, ``seed``;
    ``final_accuracy``, the mean validation accuracy of the run's last five epochs (of the test
    split, unless ``val_split`` holds training images back); and what the monitors measured in its
    last epoch: ``rsv_mean``, ``rsv_polarization``, … (of the first layer that is monitored),
    ``fisher_trace``, ``information_both``, …. A run with onset = removal had no deficit: it is the
    control of the windows that are as many epochs long.
    """
    rows = []
    for run in plan.runs:
        folder = study.segment(run.segment)
        if folder.is_done():
            history = [
                row for row in read_table(folder.metrics) if int(row["epoch"]) < run.window.epochs
            ]
            rows.append(_row(plan, run, history))
    return rows


def _row(plan: Plan, run: Run, history: list[dict[str, str]]) -> dict[str, Any]:
    row: dict[str, Any] = {"study": plan.study, **cells(run.variation), **run.window._asdict()}
    row["seed"] = run.seed
    # Not every task names things, and not every run validates after each epoch.
    accuracies = [epoch.get("val/accuracy") for epoch in history[-FINAL_EPOCHS:]]
    measured = [float(accuracy) for accuracy in accuracies if accuracy]
    if measured:
        row["final_accuracy"] = short(mean(measured))
    for column, key in _MEASURES.items():
        found = _find(history[-1], key)
        if found is not None:
            row[column] = short(float(found))
    return row


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
    ``<measure>_difference``, run minus control of the same seed. Where windows vary in their
    removal: ``critical_removal``, ``critical_removal_low``, ``critical_removal_high``, the removal
    at which the loss of final accuracy passes ``threshold``
    (:func:`~critical_periods.studies.statistics.critical_removal`).
    """
    shortest = min(run.window.epochs for run in plan.runs)
    points = {json.dumps([run.variation, run.window]): run for run in plan.runs}
    table = []
    for run in points.values():
        window = run.window
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
            line |= dict(_statistics(measure, here, control))
        table.append(line)
    for points_of_line in _lines(plan, table):
        _add_critical_removal(plan, rows, points_of_line)
    return table


def _by_seed(rows: Sequence[dict[str, Any]], *wanted: dict[str, Any]) -> dict[int, dict[str, Any]]:
    return {
        row["seed"]: row
        for row in rows
        if all(row.get(name) == value for part in wanted for name, value in part.items())
    }


def _statistics(
    measure: str, here: dict[int, dict[str, Any]], control: dict[int, dict[str, Any]]
) -> Iterator[tuple[str, float]]:
    values = {seed: row[measure] for seed, row in here.items() if measure in row}
    baseline = {seed: row[measure] for seed, row in control.items() if measure in row}
    difference = {seed: values[seed] - baseline[seed] for seed in values if seed in baseline}
    for suffix, group in (("", values), ("_control", baseline), ("_difference", difference)):
        if group:
            average, *spread = summarise(list(group.values()))
            yield f"{measure}{suffix}", short(average)
            for name, number in zip(("sd", "low", "high"), spread, strict=True):
                yield f"{measure}{suffix}_{name}", short(number)


def _lines(plan: Plan, table: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of each variation."""
    variations = {json.dumps(run.variation): cells(run.variation) for run in plan.runs}
    return [
        [row for row in table if all(row[name] == value for name, value in variation.items())]
        for variation in variations.values()
    ]


def _add_critical_removal(
    plan: Plan, rows: Sequence[dict[str, Any]], points: Sequence[dict[str, Any]]
) -> None:
    """Adds the fitted beginning of the critical period to the rows of a variation."""
    losses: dict[int, dict[int, float]] = {}
    if any(point["onset"] > 0 for point in points):
        return
    removals = sorted({point["removal"] for point in points})
    fields = ("onset", "removal", "epochs", "seeds")
    for point in points:
        variation = dict(list(point.items())[: list(point).index(fields[0])])
        window = {name: point[name] for name in fields[:3]}
        control = _by_seed(rows, variation, window | {"onset": 0, "removal": 0})
        for seed, row in _by_seed(rows, variation, window).items():
            if "final_accuracy" in row and "final_accuracy" in control.get(seed, {}):
                loss = control[seed]["final_accuracy"] - row["final_accuracy"]
                losses.setdefault(seed, {})[point["removal"]] = loss
    whole = [[of[removal] for removal in removals] for of in losses.values()
             if len(of) == len(removals)]  # fmt: skip
    if len(removals) < 2 or not whole:
        return
    names = ("critical_removal", "critical_removal_low", "critical_removal_high")
    numbers = critical_removal(removals, whole, plan.threshold)
    for point in points:
        point["threshold"] = plan.threshold
        point |= {name: short(number) for name, number in zip(names, numbers, strict=True)}
