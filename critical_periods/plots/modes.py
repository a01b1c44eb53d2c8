"""Paths that compete for the modes of a task, through training and in the plane of two paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from critical_periods.plots.style import (
    MARKERS,
    Point,
    legend_below,
    save,
    subplots,
    window_name,
    window_of,
)


def plot_modes(rows: Sequence[Point], path: Path, title: str = "", what: str = "deficit") -> None:
    """Draws the strength of every mode in every path against the epoch, with theory over it.

    One panel without a deficit and one for each onset (or removal); the window is shaded. Markers
    are the simulation, one kind a path, lines the ODE; the colour says which mode, from the
    strongest, dark, to the weakest, light. Kleinman, Achille & Soatto (ICLR 2024), Fig. 2.

    Args:
        rows: of ``modes.csv``, of one variation.
        path: of the picture; its ending says which kind.
        title: above the panels.
        what: comes and goes: ``deficit``, or ``window`` for anything else.
    """
    windows = sorted({window_of(row) for row in rows})
    paths, modes = (sorted({int(row[name]) for row in rows}) for name in ("path", "mode"))
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(modes)))
    # However few the panels, the legend below them needs its width.
    size = (max(2.9 * len(windows), 5.2) + 0.6, 3.2)
    figure, axes = subplots(1, len(windows), size, sharey=True)
    for axis, window in zip(axes[0], windows, strict=True):
        of_window = [row for row in rows if window_of(row) == window]
        for mode, colour in zip(modes, colours, strict=True):
            for number in paths:
                wanted = (number, mode)
                line = [row for row in of_window if (int(row["path"]), int(row["mode"])) == wanted]
                _draw(axis, line, colour, MARKERS[number % len(MARKERS)])
        _shade(axis, window)
        axis.set_title(window_name(window, what), fontsize="medium")
        axis.set_xlabel("Epoch")
    axes[0][0].set_ylabel("Strength of the mode in the path")
    handles: list[Artist] = [
        Line2D([], [], color="0.3", linestyle="none", marker=MARKERS[number % len(MARKERS)],
               markerfacecolor="none", label=f"path {number}, simulated")
        for number in paths
    ]  # fmt: skip
    handles.append(Line2D([], [], color="0.3", label="ODE"))
    if len(modes) > 1:
        ends = (("strongest", colours[0]), ("weakest", colours[-1]))
        handles += [Patch(color=colour, label=f"{name} mode") for name, colour in ends]
    legend_below(figure, handles)
    if title:
        figure.suptitle(title)
    save(figure, path)


def _draw(axis: Axes, line: list[Point], colour: Any, marker: str) -> None:
    line.sort(key=lambda row: float(row["epoch"]))
    epochs = [float(row["epoch"]) for row in line]
    axis.plot(epochs, [float(row["ode"]) for row in line], color=colour, linewidth=1)
    # Two dozen markers a line can be told apart.
    few = slice(None, None, max(1, len(line) // 24))
    axis.plot(
        epochs[few], [float(row["strength"]) for row in line][few],
        color=colour, linestyle="none", marker=marker, markersize=4, markerfacecolor="none",
    )  # fmt: skip


def _shade(axis: Axes, window: tuple[float, float, float]) -> None:
    onset, removal, _ = window
    if onset < removal:
        axis.axvspan(onset, removal, color="0.9", zorder=0)
    axis.spines[["top", "right"]].set_visible(False)


def plot_portraits(
    portraits: dict[tuple[int, str], NDArray[np.float64]], target: float, path: Path
) -> None:
    """Draws how two paths come to share one mode, from many starts: one plane a depth and window.

    Each line is a run from near the origin to the line on which the paths together hold all of
    the mode, K_0 + K_1 = s (dashed); its end is marked. Kleinman, Achille & Soatto (ICLR 2024),
    Fig. 1.

    Args:
        portraits: by depth and name of the window, the strengths of both paths, [T, 2, starts].
        target: s, the singular value.
        path: of the picture; its ending says which kind.
    """
    depths, windows = (list(dict.fromkeys(one)) for one in zip(*portraits, strict=True))
    size = (1.9 * len(depths) + 0.4, 2.0 * len(windows) + 0.3)
    figure, axes = subplots(len(windows), len(depths), size, sharex=True, sharey=True)
    for (depth, window), strengths in portraits.items():
        axis = axes[windows.index(window)][depths.index(depth)]
        axis.plot([0, target], [target, 0], color="0.5", linestyle="--", linewidth=1)
        axis.plot([0, target / 2], [0, target / 2], color="0.8", linewidth=0.8, zorder=0)
        axis.plot(strengths[:, 0], strengths[:, 1], color="#0072B2", linewidth=0.5)
        axis.plot(strengths[-1, 0], strengths[-1, 1], ".", color="#D55E00", markersize=3, zorder=3)
        axis.set(xlim=(0, target), ylim=(0, target), aspect="equal")
        axis.spines[["top", "right"]].set_visible(False)
    for axis, depth in zip(axes[0], depths, strict=True):
        axis.set_title(f"D = {depth}", fontsize="medium")
    for axis in axes[-1]:
        axis.set_xlabel("Strength in path 0")
    for row, window in zip(axes, windows, strict=True):
        row[0].set_ylabel(f"{window}\nStrength in path 1")
    save(figure, path)
