"""From finished segments to the table of runs and the table of the curve."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from critical_periods.studies.folder import StudyFolder, read_table, write_table
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
    row: dict[str, Any] = {"study": plan.study, **_cells(run.variation), **run.window._asdict()}
    row["seed"] = run.seed
    # Not every task names things, and not every run validates after each epoch.
    accuracies = [epoch.get("val/accuracy") for epoch in history[-FINAL_EPOCHS:]]
    measured = [float(accuracy) for accuracy in accuracies if accuracy]
    if measured:
        row["final_accuracy"] = _short(mean(measured))
    for column, key in _MEASURES.items():
        found = _find(history[-1], key)
        if found is not None:
            row[column] = _short(float(found))
    return row


def _cells(variation: dict[str, Any]) -> dict[str, Any]:
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


def _short(number: float) -> float:
    return float(f"{number:.6g}")


def curve(plan: Plan, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each window with its matched control: means and spreads over seeds.

    Columns: every varied field, ``onset``, ``removal``, ``epochs``, ``seeds``; for each measure
    ``<measure>`` (mean), ``<measure>_sd`` (sample standard deviation over seeds),
    ``<measure>_control`` and ``<measure>_control_sd``, the same of the runs without a deficit of as
    many epochs.
    """
    shortest = min(run.window.epochs for run in plan.runs)
    points = {json.dumps([run.variation, run.window]): run for run in plan.runs}
    table = []
    for run in points.values():
        window = run.window
        # The shortest control is the curve's own first point: a deficit of no epochs.
        if window.onset == window.removal and window.epochs != shortest:
            continue
        variation = _cells(run.variation)
        here = [row for row in rows if _matches(row, variation, window._asdict())]
        if not here:
            continue
        clean = {"onset": 0, "removal": 0, "epochs": window.epochs}
        control = [row for row in rows if _matches(row, variation, clean)]
        line: dict[str, Any] = {**variation, **window._asdict(), "seeds": len(here)}
        for measure in _MEANT:
            for suffix, group in (("", here), ("_control", control)):
                values = [row[measure] for row in group if measure in row]
                if values:
                    line[f"{measure}{suffix}"] = _short(mean(values))
                    line[f"{measure}{suffix}_sd"] = _spread(values)
        table.append(line)
    return table


def _matches(row: dict[str, Any], *wanted: dict[str, Any]) -> bool:
    return all(row[name] == value for part in wanted for name, value in part.items())


def _spread(values: Iterable[float]) -> float:
    values = list(values)
    return _short(stdev(values)) if len(values) > 1 else math.nan


def write_results(study: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """Writes ``results.csv`` and ``curve.csv``; returns the rows of the curve."""
    rows = results(study, plan)
    write_table(study.path / "results.csv", rows)
    points = curve(plan, rows)
    write_table(study.path / "curve.csv", points)
    return points
