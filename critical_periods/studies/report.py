"""Tables and figures of a study: everything that its finished runs give."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from critical_periods.plots.curve import curve_panels, plot_curve
from critical_periods.plots.distributions import plot_distributions
from critical_periods.plots.fisher import plot_fisher
from critical_periods.plots.information import plot_information
from critical_periods.plots.layers import plot_layers
from critical_periods.plots.modes import plot_modes
from critical_periods.plots.reconstruction import plot_reconstruction
from critical_periods.plots.sensitivity import has_sensitivity, plot_sensitivity
from critical_periods.plots.style import lines, number
from critical_periods.plots.surface import plot_surface, surface_axes
from critical_periods.studies.distributions import rsv_distributions
from critical_periods.studies.folder import StudyFolder, read_table, write_json, write_table
from critical_periods.studies.histories import (
    fisher_histories,
    information_histories,
    layer_histories,
    reconstruction_histories,
)
from critical_periods.studies.modes import mode_histories
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import curve, results
from critical_periods.studies.summary import log_summary

Rows = Sequence[Mapping[str, Any]]

# Tables beside the results and the curve: what makes them, and what draws each variation's rows.
_TABLES: dict[str, tuple[Callable[[StudyFolder, Plan], Rows], Callable[..., None]]] = {
    "fisher": (fisher_histories, plot_fisher),
    "layers": (layer_histories, plot_layers),
    "information": (information_histories, plot_information),
    "reconstruction": (reconstruction_histories, plot_reconstruction),
    "rsv": (rsv_distributions, plot_distributions),
    "modes": (mode_histories, plot_modes),
}


def write_report(folder: StudyFolder, plan: Plan) -> list[str]:
    """Writes the tables, draws the figures that they give, as PNG and PDF, and logs the summary.

    ``results.csv`` (a row a run) and ``curve.csv`` always; ``curve`` where accuracy, RSV or an
    error was measured; ``sensitivity`` where windows of a length vary in their onset; ``surface``
    where two settings vary. Where they were measured, each a table and a figure: ``fisher``,
    ``layers``, ``information``, ``reconstruction`` and ``modes``, in several epochs, and ``rsv``,
    the histograms at the end.

    Returns:
        The names of the files; none before any run is done.
    """
    path = folder.path
    rows = results(folder, plan)
    if not rows:
        return []
    written: list[str] = []

    def write(name: str, table: Rows) -> Rows:
        write_table(path / f"{name}.csv", table)
        written.append(f"{name}.csv")
        # As text, so that a figure drawn now and one drawn from the file later are the same.
        return read_table(path / f"{name}.csv")

    write("results", rows)
    points = write("curve", curve(plan, rows))
    made = {name: make(folder, plan) for name, (make, _) in _TABLES.items()}
    tables = {name: write(name, table) for name, table in made.items() if table}
    for name, draw in _figures(points, tables, plan.study, plan.kind_of_window).items():
        for ending in (".png", ".pdf"):
            draw(path / (name + ending))
        written.append(f"{name}.png")
    _clear(path, written)
    log_summary(folder, plan, points, [name for name in written if name.endswith(".png")])
    return written


def _clear(path: Path, written: Sequence[str]) -> None:
    """Takes away tables and figures that an earlier report wrote and this one has not."""
    record = path / "report.json"
    before = []
    # Without a record, or with a damaged one, nothing is known to be ours.
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        before = json.loads(record.read_text())["written"]
    for name in before:
        if name not in written:
            (path / name).unlink(missing_ok=True)
            if name.endswith(".png"):
                (path / name).with_suffix(".pdf").unlink(missing_ok=True)
    write_json(record, {"written": written})


def _figures(
    points: Rows, tables: Mapping[str, Rows], title: str, what: str = "deficit"
) -> dict[str, Callable[[Path], None]]:
    """What can be drawn: names of files without their endings, and what draws them."""
    figures: dict[str, Callable[[Path], None]] = {}
    if curve_panels(points):
        figures["curve"] = lambda path: plot_curve(points, path, title, what)
    # These two draw losses of accuracy, which not every task has.
    is_accurate = any(number(one, "final_accuracy_difference") is not None for one in points)
    if is_accurate and has_sensitivity(points):
        traces = tables.get("fisher", [])
        figures["sensitivity"] = lambda path: plot_sensitivity(points, traces, path, title, what)
    if is_accurate and surface_axes(points) is not None:
        figures["surface"] = lambda path: plot_surface(points, path, title, what)
    for table, rows_of_all in tables.items():
        for name, rows in lines(rows_of_all).items():
            if len({row.get("epoch") for row in rows}) > 1 or "epoch" not in rows[0]:
                file = re.sub(r"\W+", "_", f"{table}_{name}").strip("_")
                text = f"{title}: {name}" if name else title
                draw = partial(_TABLES[table][1], rows, title=text, what=what)
                figures[file] = draw
    return figures
