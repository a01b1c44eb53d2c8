"""Paths that compete for the modes of a task, through training and in the plane of two paths."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from critical_periods.plots.style import (
    MARKERS,
    by_window,
    legend_below,
    shade,
    subplots,
    window_name,
    window_word,
)


def plot_modes(modes: pd.DataFrame) -> Figure:
    """Draws the strength of every mode in every path against the epoch, with theory over it.

    One panel without a deficit and one for each onset (or removal); the window is shaded. Markers
    are the simulation, one kind a path, lines the ODE; the colour says which mode, from the
    strongest, dark, to the weakest, light. Kleinman, Achille & Soatto (ICLR 2024), Fig. 2.

    Args:
        modes: the table of that name, of one variation.
    """
    what, windows = window_word(modes), by_window(modes)
    paths, numbers = sorted(modes["path"].unique()), sorted(modes["mode"].unique())
    colours = dict(
        zip(numbers, colormaps["viridis"](np.linspace(0, 0.9, len(numbers))), strict=True)
    )
    markers = {path: MARKERS[path % len(MARKERS)] for path in paths}
    # However few the panels, the legend below them needs its width.
    size = (max(2.9 * len(windows), 5.2) + 0.6, 3.2)
    figure, axes = subplots(1, len(windows), size, sharey=True)
    for axis, (window, rows) in zip(axes[0], windows.items(), strict=True):
        for (mode, path), line in rows.sort_values("epoch").groupby(["mode", "path"]):
            axis.plot(line["epoch"], line["ode"], color=colours[mode], linewidth=1)
            # Two dozen markers a line can be told apart.
            few = line.iloc[:: max(1, len(line) // 24)]
            axis.plot(
                few["epoch"], few["strength"], color=colours[mode], linestyle="none",
                marker=markers[path], markersize=4, markerfacecolor="none",
            )  # fmt: skip
        shade(axis, window)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(window_name(window, what), fontsize="medium")
        axis.set_xlabel("Epoch")
    axes[0][0].set_ylabel("Strength of the mode in the path")
    handles: list[Artist] = [
        Line2D([], [], color="0.3", linestyle="none", marker=marker, markerfacecolor="none",
               label=f"path {path}, simulated")
        for path, marker in markers.items()
    ]  # fmt: skip
    handles.append(Line2D([], [], color="0.3", label="ODE"))
    if len(numbers) > 1:
        ends = {"strongest mode": numbers[0], "weakest mode": numbers[-1]}
        handles += [Patch(color=colours[mode], label=name) for name, mode in ends.items()]
    legend_below(figure, handles)
    return figure


def plot_portraits(
    portraits: Mapping[tuple[int, str], NDArray[np.float64]], target: float
) -> Figure:
    """Draws how two paths come to share one mode, from many starts: one plane a depth and window.

    Each line is a run from near the origin to the line on which the paths together hold all of
    the mode, K_0 + K_1 = s (dashed); its end is marked. Kleinman, Achille & Soatto (ICLR 2024),
    Fig. 1.

    Args:
        portraits: by depth and name of the window, the strengths of both paths, [T, 2, starts].
        target: s, the singular value.
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
    return figure
