"""Tables and figures of a study: everything that its finished runs give."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from critical_periods.plots.curve import plot_curve
from critical_periods.plots.layers import plot_layers
from critical_periods.plots.sensitivity import has_sensitivity, plot_sensitivity
from critical_periods.plots.style import lines
from critical_periods.plots.surface import plot_surface, surface_axes
from critical_periods.studies.folder import StudyFolder, read_table, write_table
from critical_periods.studies.histories import layer_histories
from critical_periods.studies.results import curve, results
from critical_periods.studies.summary import log_summary
from critical_periods.studies.tree import Plan

Rows = Sequence[Mapping[str, Any]]


def write_report(folder: StudyFolder, plan: Plan) -> list[str]:
    """Writes the tables, draws the figures that they give, as PNG and PDF, and logs the summary.

    ``results.csv`` (a row a run), ``curve.csv`` and ``curve`` always; ``layers.csv`` and
    ``layers`` where layers were measured in several epochs; ``sensitivity`` where windows of a
    length vary in their onset; ``surface`` where two settings vary.

    Returns:
        The names of the files; none before any run is done.
    """
    path = folder.path
    rows = results(folder, plan)
    if not rows:
        return []
    write_table(path / "results.csv", rows)
    write_table(path / "curve.csv", curve(plan, rows))
    # As text, so that a figure drawn now and one drawn from the file later are the same.
    points = read_table(path / "curve.csv")
    written = ["results.csv", "curve.csv"]
    histories = layer_histories(folder, plan)
    layers: Rows = []
    if histories:
        write_table(path / "layers.csv", histories)
        written.append("layers.csv")
        layers = read_table(path / "layers.csv")
    for name, draw in _figures(points, layers, plan.study).items():
        for ending in (".png", ".pdf"):
            draw(path / (name + ending))
        written.append(f"{name}.png")
    log_summary(folder, plan, points)
    return written


def _figures(points: Rows, layers: Rows, title: str) -> dict[str, Callable[[Path], None]]:
    """What can be drawn: names of files without their endings, and what draws them."""
    figures: dict[str, Callable[[Path], None]] = {
        "curve": lambda path: plot_curve(points, path, title)
    }
    if has_sensitivity(points):
        figures["sensitivity"] = lambda path: plot_sensitivity(points, layers, path, title)
    if surface_axes(points) is not None:
        figures["surface"] = lambda path: plot_surface(points, path, title)
    for name, rows in lines(layers).items():
        if len({row["epoch"] for row in rows}) > 1:
            file = re.sub(r"\W+", "_", f"layers_{name}").strip("_")
            text = f"{title}: {name}" if name else title
            figures[file] = lambda path, rows=rows, text=text: plot_layers(rows, path, text)  # type: ignore[misc]
    return figures
