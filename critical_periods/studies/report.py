"""Tables and figures of a study: everything that its finished runs give."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import wandb
from matplotlib.figure import Figure

from critical_periods.core.trainer import attempt
from critical_periods.plots import curve as curves
from critical_periods.plots import through_epochs
from critical_periods.plots.rsv import plot_rsv
from critical_periods.plots.style import lines, numbers, save
from critical_periods.runs.tracking import log_folder, wandb_logger
from critical_periods.studies.folder import StudyFolder, write_json
from critical_periods.studies.measurements import TABLES
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import curve, results
from critical_periods.studies.tables import as_table, write_table

_PLOTS: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "fisher": through_epochs.plot_fisher,
    "layers": through_epochs.plot_layers,
    "information": through_epochs.plot_information,
    "reconstruction": through_epochs.plot_reconstruction,
    "rsv": plot_rsv,
    "modes": through_epochs.plot_modes,
}


def write_report(folder: StudyFolder, plan: Plan) -> list[str]:
    """Writes the tables, draws the figures that they give, as PNG and PDF, and logs the summary.

    ``results.csv`` (a row a run) and ``curve.csv`` always; ``curve`` where accuracy, RSV or an
    error was measured; ``sensitivity`` where windows of a length vary in their onset; ``surface``
    where two settings vary. Where they were measured, each a table and a figure: ``fisher``,
    ``layers``, ``information``, ``reconstruction`` and ``modes``, in several epochs, and ``rsv``,
    the histograms at the end.

    Returns:
        The names of the files; none before any run is done. They are in ``report.json``, too,
        beside what failed: ``segment``, ``reason``, the epoch in which it ``diverged``, or null,
        and the segments ``not_tried``, which go on from it.
    """
    runs = results(folder, plan)
    if not runs:
        return []
    tables = {"results": runs, "curve": curve(plan, runs)}
    tables |= {name: rows for name, make in TABLES.items() if (rows := make(folder, plan))}
    frames = {}
    for name, rows in tables.items():
        write_table(folder.path / f"{name}.csv", rows)
        frames[name] = as_table(rows)
        frames[name].attrs["window"] = plan.kind_of_window
    drawn = figures(frames, plan.study)
    for name, draw in drawn.items():
        save(draw(), folder.path / name)
    pictures = [f"{name}.png" for name in drawn]
    written = [*(f"{name}.csv" for name in tables), *pictures]
    _clear(folder.path, written, _failures(folder, plan))
    _log_summary(folder, plan, frames["curve"], pictures)
    return written


def _failures(folder: StudyFolder, plan: Plan) -> list[dict[str, Any]]:
    """The segments that failed, as ``report.json`` has them."""
    found = {name: folder.failure(plan, name) for name in plan.segments}
    found = {name: of for name, of in found.items() if not folder.segment(name).is_done()}
    return [
        {
            "segment": name,
            "reason": folder.segment(name).error.read_text(encoding="utf-8").strip(),
            "diverged": folder.segment(name).diverged_in(),
            "not_tried": [one for one, of in found.items() if of == name and one != name],
        }
        for name, failed in found.items()
        if failed == name
    ]


def _clear(path: Path, written: Sequence[str], failed: Sequence[Mapping[str, Any]]) -> None:
    """Takes away tables and figures that an earlier report wrote and this one has not."""
    record = path / "report.json"
    before = []
    # Without a record, or with a damaged one, nothing is known to be ours.
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        before = json.loads(record.read_text())["written"]
    for file in (path / name for name in before if name not in written):
        for one in (file, file.with_suffix(".pdf")) if file.suffix == ".png" else (file,):
            one.unlink(missing_ok=True)
    write_json(record, {"written": written, "failed": failed})


def figures(tables: Mapping[str, pd.DataFrame], title: str) -> dict[str, Callable[[], Figure]]:
    """What can be drawn: names of files without their endings, and what draws them."""
    curve = tables["curve"]
    titled = partial(partial, _titled, title)
    found: dict[str, Callable[[], Figure]] = {}
    if curves.curve_panels(curve):
        found["curve"] = titled(curves.plot_curve, curve)
    # These two draw losses of accuracy, which not every task has.
    if numbers(curve, "final_accuracy_difference").notna().any():
        if curves.has_sensitivity(curve):
            found["sensitivity"] = titled(curves.plot_sensitivity, curve, tables.get("fisher"))
        if curves.surface_axes(curve) is not None:
            found["surface"] = titled(curves.plot_surface, curve)
    for kind in (name for name in _PLOTS if name in tables):
        for name, rows in lines(tables[kind]).items():
            if "epoch" not in rows or rows["epoch"].nunique() > 1:
                file = re.sub(r"\W+", "_", f"{kind}_{name}").strip("_")
                text = f"{title}: {name}" if name else title
                found[file] = partial(_titled, text, _PLOTS[kind], rows)
    return found


def _titled(title: str, draw: Callable[..., Figure], *tables: pd.DataFrame | None) -> Figure:
    figure = draw(*tables)
    figure.suptitle(title)
    return figure


def _log_summary(
    folder: StudyFolder, plan: Plan, curve: pd.DataFrame, figures: Sequence[str]
) -> None:
    """Logs the figures, the curve as a table and a chart of it, in the group of the segments."""
    # One run for each folder, however often this is done.
    place = f"{plan.study} {folder.path.resolve()}"
    id_ = hashlib.sha256(place.encode()).hexdigest()[:16]
    # This one says all that earlier ones say, which are still to be sent. They go first: an offline
    # run is named by the second in which it begins.
    for earlier in (log_folder(folder.path) / "wandb").glob(f"offline-run-*-{id_}"):
        shutil.rmtree(earlier, ignore_errors=True)
    logger = wandb_logger(folder.path, id_, group=plan.study, name="summary", job_type="summary")
    if logger is not None:
        attempt(_log, logger.experiment, plan, curve, [folder.path / name for name in figures])
        logger.finish(0)


def _log(run: Any, plan: Plan, curve: pd.DataFrame, paths: Sequence[Path]) -> None:
    cells = curve.apply(_column).astype(object).where(curve.notna(), None)
    table = wandb.Table(columns=list(cells), data=cells.to_numpy().tolist())
    against = "onset" if (curve["onset"] > 0).any() else "removal"
    shown: dict[str, Any] = {path.stem: wandb.Image(str(path)) for path in paths}
    shown["curve_table"] = table
    if "final_accuracy" in curve:
        chart = wandb.plot.scatter(table, against, "final_accuracy", title=plan.study)
        shown["curve_chart"] = chart
    run.log(shown)


def _column(cells: pd.Series) -> pd.Series:
    """A column as W&B wants it: of numbers or text alone."""
    numbers = pd.to_numeric(cells, errors="coerce")
    return numbers if numbers.notna().equals(cells.notna()) else cells.astype(str)
