"""The critical-period curve: what a deficit leaves behind against its removal or onset."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from critical_periods.core.errors import UserError
from critical_periods.plots.sensitivity import has_sensitivity
from critical_periods.plots.style import (
    axis_name,
    by_length,
    legend_below,
    lines,
    look_of,
    numbers,
    subplots,
    window_word,
)

_PANELS = (
    ("final_accuracy", "Final accuracy (%)", 100.0),
    ("final_accuracy_difference", "Loss of final accuracy (points)", -100.0),
    ("rsv_mean", "Mean RSV", 1.0),
    ("rsv_polarization", "Polarised units, |RSV| > 0.5 (%)", 100.0),
    ("error", "Relative squared error", 1.0),
    ("path_share", "Share of path 0 (%)", 100.0),
)


def plot_curve(curve: pd.DataFrame) -> Figure:
    """Draws what a deficit leaves behind against its removal (or onset).

    Final accuracy, its loss (the mean difference to the clean runs of the same seeds), mean RSV,
    polarization, error and share of a path, as far as they were measured. Points are means over
    seeds, bars one standard deviation. Hollow markers are the clean runs of the same length as each
    point; the dashed line is the level of the shortest of them, not what the later points are to
    be compared with. RSV is +1 for units that vary with view 0 (left) alone and -1 for view 1
    (right).

    Args:
        curve: the table of that name, such as ``load_study(folder).curve``.

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
    groups = by_length(curve) if has_sensitivity(curve) else lines(curve)
    handles: list[Artist | Container] = []
    drawn: list[float] = []
    for place, (name, line) in enumerate(groups.items()):
        if against == "onset":
            line = line[line["removal"] > line["onset"]]
        colour, marker = look_of(place)
        style: dict[str, Any] = {"color": colour, "capsize": 3, "markersize": 5, "marker": marker}
        hollow = {"linestyle": "none", "markerfacecolor": "white", "alpha": 0.7}
        line = line[numbers(line, measure).notna()].sort_values(against, kind="stable")
        bars = []
        for column, look in ((measure, {"label": name or what}), (f"{measure}_control", hollow)):
            line = line[numbers(line, column).notna()]
            means = scale * numbers(line, column)
            spreads = abs(scale) * numbers(line, f"{column}_sd").fillna(0)
            bars.append(axis.errorbar(line[against], means, spreads, **{**style, **look}))
            drawn += list(means)
        handles.append(bars[0])
        # The level of the shortest control.
        if len(means):
            axis.axhline(means.iloc[0], color=colour, linestyle="--", linewidth=0.8, alpha=0.7)
    if measure in ("final_accuracy_difference", "rsv_mean"):
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    if measure == "error" and 0 < min(drawn) < max(drawn) / 100:
        # On a linear axis all but the largest would be zero. Bars may reach below it.
        axis.set_yscale("log")
        axis.set_ylim(bottom=min(drawn) / 2)
    axis.set_xlabel(axis_name(against, what))
    axis.spines[["top", "right"]].set_visible(False)
    return handles


def _of_controls(curve: pd.DataFrame, what: str) -> list[Artist | Container]:
    """What the legend shows of the runs without a deficit: markers, and the level of one length."""
    marks: dict[str, Any] = {"color": "0.4", "marker": "o", "markerfacecolor": "white"}
    line: dict[str, Any] = {"color": "0.4", "linestyle": "--", "linewidth": 0.8}
    matched = f"no {what}, as many epochs"
    if curve["epochs"].nunique() == 1:
        return [Line2D([], [], **line | marks, markersize=5, label=matched)]
    return [
        Line2D([], [], **marks, linestyle="none", markersize=5, label=matched),
        Line2D([], [], **line, label=f"no {what}, fewest epochs"),
    ]
