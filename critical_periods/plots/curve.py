"""What a deficit leaves behind: the critical-period curve, the sensitivity curve, the surface."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from critical_periods.core.errors import UserError
from critical_periods.plots.style import (
    axis_name,
    by_length,
    by_rung,
    by_window,
    legend_below,
    lines,
    look_of,
    numbers,
    one_panel,
    spread,
    subplots,
    varied,
    window_word,
)

_PANELS = (
    ("final_accuracy", "Final accuracy (%)", 100.0),
    ("final_accuracy_difference", "Loss of final accuracy (points)", -100.0),
    ("final_accuracy_target_difference", "Gain over as many target epochs (points)", 100.0),
    ("rsv_mean", "Mean RSV", 1.0),
    ("rsv_polarization", "Polarised units, |RSV| > 0.5 (%)", 100.0),
    ("error", "Relative squared error", 1.0),
    ("path_share", "Share of path 0 (%)", 100.0),
    ("success", "Success (%)", 100.0),
    ("success_area", "Mean success over the run (%)", 100.0),
    ("success_area_difference", "Gain of mean success (points)", 100.0),
)

_DIVERGED: dict[str, Any] = {"linestyle": "none", "marker": "x"}


def plot_curve(curve: pd.DataFrame) -> Figure:
    """Draws what a deficit leaves behind against its removal (or onset).

    Final accuracy, its loss (the mean difference to the clean runs of the same seeds), mean RSV,
    polarization, error and share of a path, as far as they were measured. Points are means over
    seeds, bars one standard deviation. Hollow markers are the clean runs of the same length as each
    point; the dashed line is the level of the shortest of them, not what the later points are to
    be compared with. RSV is +1 for units that vary with view 0 (left) alone and -1 for view 1
    (right). A cross at the lower edge stands where seeds have diverged, which are left out.

    The table is that of a study, ``load_study(folder).curve``.

    Raises:
        UserError: the table has nothing that could be drawn.

    Example:
        >>> curve = pd.DataFrame({
        ...     "onset": [0, 0], "removal": [0, 20], "epochs": [40, 60],
        ...     "final_accuracy": [0.99, 0.95], "final_accuracy_control": [0.99, 0.99],
        ... })
        >>> plot_curve(curve).axes[0].get_xlabel()
        'Deficit removed at epoch'
    """
    what, panels = window_word(curve), curve_panels(curve)
    if not panels:
        raise UserError("the curve has no accuracy, RSV or error that could be drawn.")
    figure, axes = subplots(1, len(panels), (4.2 * len(panels), 3.6))
    for axis, (measure, label, scale) in zip(axes[0], panels, strict=True):
        handles = _draw(axis, curve, measure, scale, what)
        axis.set_ylabel(label)
    if any(numbers(curve, f"{measure}_control").notna().any() for measure, _, _ in panels):
        handles += _of_controls(curve, what)
    legend_below(figure, handles)
    return figure


def curve_panels(curve: pd.DataFrame) -> list[tuple[str, str, float]]:
    """What :func:`plot_curve` can draw: measures, what they are called, and factors."""
    return [panel for panel in _PANELS if numbers(curve, panel[0]).notna().any()]


def _draw(
    axis: Axes, curve: pd.DataFrame, measure: str, scale: float, what: str
) -> list[Artist | Container]:
    """Fills a panel; returns what its legend shows of each line."""
    against = "onset" if (curve["onset"] > 0).any() else "removal"
    groups = by_length(curve) if has_sensitivity(curve) else by_rung(lines(curve))
    handles: list[Artist | Container] = []
    drawn: list[float] = []
    for place, (name, line) in enumerate(groups.items()):
        if against == "onset":
            line = line[line["removal"] > line["onset"]]
        colour, marker = look_of(place)
        failed = line[numbers(line, "diverged_seeds") > 0][against]
        # Just above the lower edge, whatever the scale.
        edge = {"transform": axis.get_xaxis_transform(), **_DIVERGED}
        axis.plot(failed, [0.03] * len(failed), color=colour, **edge)
        line = line[numbers(line, measure).notna()]
        look: dict[str, Any] = {"color": colour, "markersize": 5, "marker": marker}
        means, bars = _bars(axis, line, against, measure, scale, **look, label=name or what)
        look |= {"linestyle": "none", "markerfacecolor": "white", "alpha": 0.7}
        levels, _ = _bars(axis, line, against, f"{measure}_control", scale, **look)
        if levels:
            # Of the shortest control.
            axis.axhline(levels[0], color=colour, linestyle="--", linewidth=0.8, alpha=0.7)
        handles.append(bars)
        drawn += means + levels
    if measure.endswith("_difference") or measure == "rsv_mean":
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    if measure == "error" and drawn and 0 < min(drawn) < max(drawn) / 100:
        # On a linear axis all but the largest would be zero. Bars may reach below it.
        axis.set_yscale("log")
        axis.set_ylim(bottom=min(drawn) / 2)
    axis.set_xlabel(axis_name(against, what))
    axis.spines[["top", "right"]].set_visible(False)
    if (numbers(curve, "diverged_seeds") > 0).any():
        handles.append(Line2D([], [], **_DIVERGED, color="black", label="diverged seeds"))
    return handles


def _bars(
    axis: Axes, line: pd.DataFrame, against: str, measure: str, scale: float, **look: Any
) -> tuple[list[float], ErrorbarContainer]:
    """Draws means and standard deviations where they were measured; returns the means."""
    line = line[numbers(line, measure).notna()].sort_values(against, kind="stable")
    means = scale * numbers(line, measure)
    deviations = abs(scale) * spread(line, measure)
    bars = axis.errorbar(line[against], means, deviations, capsize=3, **look)
    return list(means), bars


def _of_controls(curve: pd.DataFrame, what: str) -> list[Artist | Container]:
    """What the legend shows of the runs without a deficit: markers, and the level of one length."""
    line: dict[str, Any] = {"color": "0.4", "linestyle": "--", "linewidth": 0.8}
    marks = line | {"marker": "o", "markerfacecolor": "white", "markersize": 5}
    matched = f"no {what}, as many epochs"
    if curve["epochs"].nunique() == 1:
        return [Line2D([], [], **marks, label=matched)]
    marks["linestyle"] = "none"
    shortest = Line2D([], [], **line, label=f"no {what}, fewest epochs")
    return [Line2D([], [], **marks, label=matched), shortest]


def plot_sensitivity(
    curve: pd.DataFrame, fisher: pd.DataFrame | None = None, ax: Axes | None = None
) -> Figure:
    """Draws the loss of final accuracy against the onset of a window of fixed length.

    Behind it, where it was measured, stands the Fisher trace of the run without a deficit through
    its epochs (Achille, Rovere & Soatto 2019 draw the two together). Points are means over
    seeds of the paired differences, bars one standard deviation of them.

    ``ax`` is drawn into instead of a figure of its own.
    """
    what = window_word(curve)
    figure, axis = one_panel(ax, (5.6, 3.8))
    for place, (name, line) in enumerate(by_length(curve).items()):
        colour, marker = look_of(place)
        look = {"color": colour, "marker": marker, "label": name}
        _bars(axis, line, "onset", "final_accuracy_difference", -100, **look)
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axis.set(xlabel=f"Onset of the {what}", ylabel="Loss of final accuracy (points)")
    if fisher is not None and (fisher["onset"] == fisher["removal"]).any():
        clean = fisher[fisher["onset"] == fisher["removal"]]
        trace = next(iter(by_window(next(iter(lines(clean).values()))).values()))
        behind = axis.twinx()
        behind.fill_between(trace["epoch"], trace["fisher_trace"], color="0.85", zorder=0)
        behind.set_ylabel(f"Fisher trace without a {what}", color="0.4")
        behind.set_ylim(bottom=0)
        axis.set(xlabel=f"Onset of the {what}, or epoch", zorder=behind.get_zorder() + 1)
        axis.patch.set_visible(False)
    axis.legend(frameon=False, fontsize="small")
    return figure


def has_sensitivity(curve: pd.DataFrame) -> bool:
    """Whether windows of one length vary in their onset."""
    return any(line["onset"].nunique() > 1 for line in by_length(curve).values())


def surface_axes(curve: pd.DataFrame) -> tuple[str, str] | None:
    """The two settings that span a surface, or ``None`` where the points span none.

    These are the onset and the ``length`` of the window, or, where one numeric field is varied,
    the removal (or onset) and that field.
    """
    deficits = _deficits(curve)
    if deficits.empty:
        return None
    # Windows on a line in that plane, as those from each onset to the end, do not span it.
    windows = deficits[["onset", "length"]].drop_duplicates()
    is_plane = len(windows) > max(windows.nunique())
    names = varied(deficits)
    if not names and is_plane:
        return "onset", "length"
    if len(names) != 1 or is_plane:
        return None
    is_numeric = pd.to_numeric(deficits[names[0]], errors="coerce").notna().all()
    across = "onset" if windows["onset"].nunique() > 1 else "removal"
    return (across, names[0]) if is_numeric else None


def plot_surface(curve: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draws the loss of final accuracy as a heat map over two settings, with its numbers.

    Cells are means over seeds of the paired differences to the runs without a deficit; settings
    that were not run stay white. ``ax`` is drawn into instead of a figure of its own.

    Raises:
        UserError: no two settings vary (:func:`surface_axes`).
    """
    what, axes = window_word(curve), surface_axes(curve)
    if axes is None:
        raise UserError("the curve has no two settings that span a surface.")
    across, up = axes
    cells = _deficits(curve).assign(loss=-100 * numbers(curve, "final_accuracy_difference"))
    cells = cells.dropna(subset="loss").drop_duplicates([across, up], keep="last")
    losses = cells.astype({across: float, up: float}).pivot(index=up, columns=across, values="loss")
    table = losses.to_numpy()
    # However few the columns, the title needs its width.
    size = (max(1.8 + 0.8 * table.shape[1], 5.0), 1.6 + 0.5 * table.shape[0])
    figure, axis = one_panel(ax, size)
    # Cells say tenths of a point: a finer scale would only be read with powers of ten beside it.
    largest = max(float(np.nanmax(np.abs(table))), 0.1)
    lowest = min(0.0, float(np.nanmin(table)))
    scale: dict[str, Any] = {"cmap": "cividis", "vmin": lowest, "vmax": largest}
    picture = axis.imshow(table, origin="lower", aspect="auto", **scale)
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            shade = "black" if value > 0.6 * largest else "white"
            axis.text(column, row, f"{value:z.1f}", ha="center", va="center", color=shade)
    axis.set_xticks(range(table.shape[1]), [f"{value:g}" for value in losses.columns])
    axis.set_yticks(range(table.shape[0]), [f"{value:g}" for value in losses.index])
    axis.set(xlabel=axis_name(across, what), ylabel=axis_name(up, what))
    figure.colorbar(picture, ax=axis, label="Loss of final accuracy (points)")
    return figure


def _deficits(curve: pd.DataFrame) -> pd.DataFrame:
    """The windows that are not empty, with their ``length``."""
    return curve.assign(length=curve["removal"] - curve["onset"]).query("length > 0")
