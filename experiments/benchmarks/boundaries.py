"""Adaptive studies beside the full grid of the same runs: where harm begins, and what it took.

    python experiments/benchmarks/boundaries.py NAME RUNS --output experiments/results

compares ``RUNS/NAME``, whose kernel is plain by default, ``RUNS/NAME_either`` and
``RUNS/NAME_deep`` (the same study with ``--set windows.adaptive.kernel=either`` or ``deep``) with
``RUNS/NAME_grid``. It writes
``NAME.csv``, a row a line of the grid along its lengths: the length from which on the loss passes
the threshold, as the grid has it (straight between its lengths) and as each Gaussian process has
it, and the interval that the grid leaves: from the last length whose mean loss lies below the
threshold by the 95 % interval over its seeds to the first that lies above it. And
``NAME_costs.csv``, a row a study: epochs trained, and how many of the lines it has within that
interval.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from critical_periods.studies import lattice, load_study
from critical_periods.studies.folder import StudyFolder
from critical_periods.studies.impairment import losses, posterior
from critical_periods.studies.loading import LoadedStudy
from critical_periods.studies.rounds import has_ended, read_record
from critical_periods.studies.statistics import summarise
from critical_periods.studies.tables import short, write_table

KERNELS = {"either": "_either", "deep": "_deep", "plain": ""}
MEASURES = ("final_accuracy", "path_share")


def intervals(grid: LoadedStudy, axes: list[str]) -> pd.DataFrame:
    """The mean loss of each point of the grid with its 95 % interval over seeds."""
    runs = grid.runs.assign(length=grid.runs["removal"] - grid.runs["onset"])
    measure = next(name for name in MEASURES if name in runs)
    keys = ["seed", *axes[2:]]
    control = runs[runs["length"] == 0].set_index(keys)[measure]
    deficits = runs[runs["length"] > 0]
    beside = control.reindex(pd.MultiIndex.from_frame(deficits[keys])).to_numpy()
    lost = deficits.assign(loss=abs(beside - deficits[measure].to_numpy()))
    if measure == "final_accuracy":
        lost["loss"] = beside - deficits[measure].to_numpy()
    found = lost.groupby(axes, sort=True)["loss"].apply(lambda of: summarise(list(of)))
    table = pd.DataFrame(found.tolist(), found.index, columns=["loss", "sd", "low", "high"])
    return table.reset_index()


def crossing(lengths: np.ndarray, loss: np.ndarray, threshold: float) -> float:
    """The first length at which the loss passes the threshold: 0 before the first, inf: of none."""
    above = np.flatnonzero(loss > threshold)
    if not len(above) or not above[0]:
        return 0.0 if len(above) else np.inf
    around = slice(above[0] - 1, above[0] + 1)
    return float(np.interp(threshold, loss[around], lengths[around]))


def compared(name: str, runs: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of either table, by its name."""
    grid = load_study(runs / f"{name}_grid")
    models = {}
    space = load_study(runs / name).plan.adaptive
    assert space is not None
    for kernel, suffix in KERNELS.items():
        if not has_ended(StudyFolder(runs / f"{name}{suffix}")):
            continue
        study = load_study(runs / f"{name}{suffix}")
        record, of = read_record(study.folder), study.plan.adaptive
        assert record is not None and of is not None and of.kernel == kernel
        chosen = [run for one in record.rounds for run in one.runs]
        lost = losses(of, study.rows("results"), chosen)
        models[kernel] = study, posterior(of, chosen, lost, record.rounds[-1].fit)
    axes, threshold = [*space.axes], space.threshold
    inside = dict.fromkeys(models, 0)
    along = [one for one in axes if one != "length"]
    lines = intervals(grid, axes).groupby(along, sort=True)
    for place, line in lines:
        lengths = line["length"].to_numpy(dtype=float)
        below, above = (line["high"] < threshold).to_numpy(), (line["low"] > threshold).to_numpy()
        high = float(lengths[above][0]) if above.any() else np.inf
        low = float(max([0.0, *lengths[below & (lengths < high)]]))
        row: dict[str, Any] = dict(zip(along, place, strict=True))
        row |= {"grid": short(crossing(lengths, line["loss"].to_numpy(), threshold))}
        row |= {"grid_low": low, "grid_high": high}
        fine = np.linspace(lengths[0], lengths[-1], 181)
        points = [(place[0], length, *place[1:]) for length in fine]
        for kernel, (_, found) in models.items():
            mean = found.model.mean(lattice.unit(space, points))
            at = crossing(fine, mean, threshold)
            held = low <= at <= high
            inside[kernel] += held
            row |= {kernel: short(at), f"{kernel} within": int(held)}
        yield name, row
    whole = grid.plan.epochs
    yield f"{name}_costs", {"study": "full grid", "runs": _deficits(grid), "epochs": whole}
    for kernel, (study, found) in models.items():
        table = study.adaptive
        used = int(table["epochs"].sum())
        yield f"{name}_costs", {
            "study": kernel, "runs": _deficits(study), "epochs": used,
            "share": short(used / whole), "within": inside[kernel], "lines": len(lines),
            "covered": table["covered"].dropna().iloc[-1], "probability": found.fit.impaired,
            "probability_low": found.fit.low, "probability_high": found.fit.high,
            "architecture": str(found.fit.choice.architecture),
        }  # fmt: skip


def _deficits(study: LoadedStudy) -> int:
    return sum(run.window.removal > run.window.onset for run in study.plan.runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="of the study, such as boundary_paths")
    parser.add_argument("runs", type=Path, help="the folder of the studies' folders")
    parser.add_argument("--output", type=Path, required=True, help="folder of the tables")
    options = parser.parse_args()
    tables: dict[str, list[dict[str, Any]]] = {}
    for table, row in compared(options.name, options.runs):
        print(*row.values(), sep="  ", flush=True)
        tables.setdefault(table, []).append(row)
    for table, rows in tables.items():
        write_table(options.output / f"{table}.csv", rows)


if __name__ == "__main__":
    main()
