"""The critical-period curve."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Okabe & Ito 2008: told apart by colour-blind readers and in grey print.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "os^Dv<P"
_PANELS = (
    ("final_accuracy", "Final accuracy (%)", 100.0),
    ("rsv_mean", "Mean RSV", 1.0),
    ("rsv_polarization", "Polarised units, |RSV| > 0.5 (%)", 100.0),
)


def plot_curve(points: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> None:
    """Draws final accuracy, mean RSV and polarization against the removal (or onset) of a deficit.

    Points are means over seeds, bars one standard deviation. The dashed line is the no-deficit
    level, hollow markers the clean runs of the same length as each point. RSV is +1 for units that
    listen to view 0 (left) alone and -1 for view 1 (right).

    Args:
        points: rows of ``curve.csv``.
        path: of the picture; its ending says which kind.
        title: above the panels.
    """
    panels = [
        panel for panel in _PANELS if any(_number(point, panel[0]) is not None for point in points)
    ]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.6), squeeze=False, layout="constrained"
    )
    for axis, (measure, label, scale) in zip(axes[0], panels, strict=True):
        _draw(axis, points, measure, scale)
        axis.set_ylabel(label)
    axes[0][0].legend(frameon=False, fontsize="small")
    if title:
        figure.suptitle(title)
    beside = path.with_name(f".{path.name}.part{path.suffix}")
    figure.savefig(beside, dpi=150)
    plt.close(figure)
    os.replace(beside, path)


def _draw(axis: Axes, points: Sequence[Mapping[str, Any]], measure: str, scale: float) -> None:
    against = "onset" if any(float(point["onset"]) > 0 for point in points) else "removal"
    for number, (name, line) in enumerate(_lines(points).items()):
        line = [point for point in line if _number(point, measure) is not None]
        if against == "onset":
            line = [point for point in line if float(point["removal"]) > float(point["onset"])]
        line.sort(key=lambda point: float(point[against]))
        colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
        epochs = [float(point[against]) for point in line]
        style: dict[str, Any] = {"color": colour, "capsize": 3, "markersize": 5, "marker": marker}
        axis.errorbar(epochs, *_values(line, measure, scale), **style, label=name or "deficit")
        controls = [point for point in line if _number(point, f"{measure}_control") is not None]
        axis.errorbar(
            [float(point[against]) for point in controls],
            *_values(controls, f"{measure}_control", scale),
            **{**style, "linestyle": "none", "markerfacecolor": "white", "alpha": 0.7},
            label="no deficit, as many epochs" if not name else None,
        )
        if controls:
            level = scale * float(controls[0][f"{measure}_control"])
            axis.axhline(level, color=colour, linestyle="--", linewidth=0.8, alpha=0.7)
    if measure == "rsv_mean":
        axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    what = "Deficit removed at epoch" if against == "removal" else "Onset of the deficit (epoch)"
    axis.set_xlabel(what)
    axis.spines[["top", "right"]].set_visible(False)


def _lines(points: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Points by the values of their varied fields, which stand before the column ``onset``."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        names = list(point)
        varied = names[: names.index("onset")]
        label = ", ".join(f"{name.split('.')[-1]} = {_brief(point[name])}" for name in varied)
        lines.setdefault(label, []).append(point)
    return lines


def _brief(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("class_path", value)).rsplit(".", 1)[-1]
    return "none" if value is None or value == "" else str(value)


def _values(
    points: Sequence[Mapping[str, Any]], measure: str, scale: float
) -> tuple[list[float], list[float]]:
    means = [scale * float(point[measure]) for point in points]
    spreads = [scale * (_number(point, f"{measure}_sd") or 0.0) for point in points]
    return means, spreads


def _number(point: Mapping[str, Any], measure: str) -> float | None:
    value = point.get(measure)
    if value is None or value == "":
        return None
    number = float(value)
    return None if number != number else number
