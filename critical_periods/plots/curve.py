"""The critical-period curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.lines import Line2D

from critical_periods.plots.sensitivity import has_sensitivity
from critical_periods.plots.style import (
    Point,
    axis_name,
    by_length,
    legend_below,
    lines,
    look_of,
    number,
    save,
    subplots,
)

_PANELS = (
    ("final_accuracy", "Final accuracy (%)", 100.0),
    ("final_accuracy_difference", "Loss of final accuracy (points)", -100.0),
    ("rsv_mean", "Mean RSV", 1.0),
    ("rsv_polarization", "Polarised units, |RSV| > 0.5 (%)", 100.0),
    ("error", "Relative squared error", 1.0),
    ("path_share", "Share of path 0 (%)", 100.0),
)


def plot_curve(points: Sequence[Point], path: Path, title: str = "", what: str = "deficit") -> None:
    """Draws what a deficit leaves behind against its removal (or onset).

    Final accuracy, its loss (the mean difference to the clean runs of the same seeds), mean RSV,
    polarization, error and share of a path, as far as they were measured. Points are means over
    seeds, bars one standard deviation. Hollow markers are the clean runs of the same length as each
    point; the dashed line is the level of the shortest of them, not what the later points are to
    be compared with. RSV is +1 for units that listen to view 0 (left) alone and -1 for view 1
    (right).

    Args:
        points: rows of ``curve.csv``.
        path: of the picture; its ending says which kind.
        title: above the panels.
        what: comes and goes: ``deficit``, or ``window`` for anything else.
    """
    panels = curve_panels(points)
    figure, axes = subplots(1, len(panels), (4.2 * len(panels), 3.6))
    for axis, (measure, label, scale) in zip(axes[0], panels, strict=True):
        handles = _draw(axis, points, measure, scale, what)
        axis.set_ylabel(label)
    controls = [f"{measure}_control" for measure, _, _ in panels]
    if any(number(point, name) is not None for point in points for name in controls):
        handles += _of_controls(points, what)
    legend_below(figure, handles)
    if title:
        figure.suptitle(title)
    save(figure, path)


def curve_panels(points: Sequence[Point]) -> list[tuple[str, str, float]]:
    """What :func:`plot_curve` can draw: measures, what they are called, and factors.

    Args:
        points: rows of ``curve.csv``.
    """
    return [
        panel for panel in _PANELS if any(number(point, panel[0]) is not None for point in points)
    ]


def _draw(
    axis: Axes, points: Sequence[Point], measure: str, scale: float, what: str
) -> list[Artist | Container]:
    """Fills a panel; returns what its legend shows of each line."""
    against = "onset" if any(float(point["onset"]) > 0 for point in points) else "removal"
    groups = by_length(points) if has_sensitivity(points) else lines(points)
    handles: list[Artist | Container] = []
    drawn: list[float] = []
    for place, (name, line) in enumerate(groups.items()):
        line = [point for point in line if number(point, measure) is not None]
        if against == "onset":
            line = [point for point in line if float(point["removal"]) > float(point["onset"])]
        line.sort(key=lambda point: float(point[against]))
        colour, marker = look_of(place)
        epochs = [float(point[against]) for point in line]
        style: dict[str, Any] = {"color": colour, "capsize": 3, "markersize": 5, "marker": marker}
        means, spreads = _values(line, measure, scale)
        handles.append(axis.errorbar(epochs, means, spreads, **style, label=name or what))
        controls = [point for point in line if number(point, f"{measure}_control") is not None]
        levels, spreads = _values(controls, f"{measure}_control", scale)
        axis.errorbar(
            [float(point[against]) for point in controls], levels, spreads,
            **{**style, "linestyle": "none", "markerfacecolor": "white", "alpha": 0.7},
        )  # fmt: skip
        if levels:
            axis.axhline(levels[0], color=colour, linestyle="--", linewidth=0.8, alpha=0.7)
        drawn += means + levels
    if measure in ("final_accuracy_difference", "rsv_mean"):
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    if measure == "error" and 0 < min(drawn) < max(drawn) / 100:
        # On a linear axis all but the largest would be zero. Bars may reach below it.
        axis.set_yscale("log")
        axis.set_ylim(bottom=min(drawn) / 2)
    axis.set_xlabel(axis_name(against, what))
    axis.spines[["top", "right"]].set_visible(False)
    return handles


def _of_controls(points: Sequence[Point], what: str) -> list[Artist | Container]:
    """What the legend shows of the runs without a deficit: markers, and the level of one length."""
    marks: dict[str, Any] = {"color": "0.4", "marker": "o", "markerfacecolor": "white"}
    line: dict[str, Any] = {"color": "0.4", "linestyle": "--", "linewidth": 0.8}
    matched = f"no {what}, as many epochs"
    if len({float(point["epochs"]) for point in points}) == 1:
        return [Line2D([], [], **line | marks, markersize=5, label=matched)]
    return [
        Line2D([], [], **marks, linestyle="none", markersize=5, label=matched),
        Line2D([], [], **line, label=f"no {what}, fewest epochs"),
    ]


def _values(points: Sequence[Point], measure: str, scale: float) -> tuple[list[float], list[float]]:
    means = [scale * float(point[measure]) for point in points]
    spreads = [abs(scale) * (number(point, f"{measure}_sd") or 0.0) for point in points]
    return means, spreads
