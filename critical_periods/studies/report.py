"""Tables and figures of a study: everything that its finished runs give."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from critical_periods.plots.curve import (
    curve_panels,
    has_sensitivity,
    plot_curve,
    plot_sensitivity,
    plot_surface,
    surface_axes,
)
from critical_periods.plots.rsv import plot_rsv
from critical_periods.plots.style import lines, numbers, save
from critical_periods.plots.through_epochs import (
    plot_fisher,
    plot_information,
    plot_layers,
    plot_modes,
    plot_reconstruction,
)
from critical_periods.studies.folder import StudyFolder, write_json
from critical_periods.studies.measurements import TABLES
from critical_periods.studies.plan import Plan
from critical_periods.studies.results import curve, results
from critical_periods.studies.summary import log_summary
from critical_periods.studies.tables import as_table, write_table

_PLOTS: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "fisher": plot_fisher,
    "layers": plot_layers,
    "information": plot_information,
    "reconstruction": plot_reconstruction,
    "rsv": plot_rsv,
    "modes": plot_modes,
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
    _clear(folder.path, written)
    log_summary(folder, plan, frames["curve"], pictures)
    return written


def _clear(path: Path, written: Sequence[str]) -> None:
    """Takes away tables and figures that an earlier report wrote and this one has not."""
    record = path / "report.json"
    before = []
    # Without a record, or with a damaged one, nothing is known to be ours.
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        before = json.loads(record.read_text())["written"]
    for file in (path / name for name in before if name not in written):
        for one in (file, file.with_suffix(".pdf")) if file.suffix == ".png" else (file,):
            one.unlink(missing_ok=True)
    write_json(record, {"written": written})


def figures(tables: Mapping[str, pd.DataFrame], title: str) -> dict[str, Callable[[], Figure]]:
    """What can be drawn: names of files without their endings, and what draws them."""
    curve = tables["curve"]
    titled = partial(partial, _titled, title)
    found: dict[str, Callable[[], Figure]] = {}
    if curve_panels(curve):
        found["curve"] = titled(plot_curve, curve)
    # These two draw losses of accuracy, which not every task has.
    if numbers(curve, "final_accuracy_difference").notna().any():
        if has_sensitivity(curve):
            found["sensitivity"] = titled(plot_sensitivity, curve, tables.get("fisher"))
        if surface_axes(curve) is not None:
            found["surface"] = titled(plot_surface, curve)
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
