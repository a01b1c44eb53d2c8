"""How much the answers hang on the weights, through training, with and without a deficit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.lines import Line2D

from critical_periods.plots.style import Point, number, save, subplots, window_name, window_of


def plot_fisher(rows: Sequence[Point], path: Path, title: str = "", what: str = "deficit") -> None:
    """Draws the Fisher trace of the whole network against the epoch, a line for each window.

    Lines are means over seeds, bands one standard deviation; a line is broad while its window is
    open, and the one without a window is black and dashed. Achille, Rovere & Soatto 2019 show the
    trace of both, and read from it when a network takes in what it sees.

    Args:
        rows: of ``fisher.csv``, of one variation.
        path: of the picture; its ending says which kind.
        title: above the picture.
        what: comes and goes: ``deficit``, or ``window`` for anything else.
    """
    windows = sorted({window_of(row) for row in rows}, key=lambda window: (window[:2], window[2]))
    # The longest clean run is every other one's, too, as far as that goes.
    clean = [window for window in windows if window[0] == window[1]][-1:]
    shown = [window for window in windows if window[0] < window[1]]
    colours = [*("black" for _ in clean), *colormaps["viridis"](np.linspace(0, 0.9, len(shown)))]
    figure, ((axis,),) = subplots(1, 1, (7.2, 3.6))
    for window, colour in zip([*clean, *shown], colours, strict=True):
        line = [row for row in rows if window_of(row) == window]
        epochs = np.array([float(row["epoch"]) for row in line])
        traces = np.array([float(row["fisher_trace"]) for row in line])
        spread = np.array([number(row, "fisher_trace_sd") or 0.0 for row in line])
        style, name = "--" if window in clean else "-", window_name(window, what)
        axis.plot(epochs, traces, style, color=colour, linewidth=1.2, label=name)
        axis.fill_between(epochs, traces - spread, traces + spread, color=colour, alpha=0.2, lw=0)
        is_open = (window[0] <= epochs) & (epochs < window[1])
        axis.plot(epochs[is_open], traces[is_open], color=colour, linewidth=3.5, alpha=0.6)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("Epoch")
    axis.set_ylabel("Trace of the Fisher information")
    axis.spines[["top", "right"]].set_visible(False)
    handles, _ = axis.get_legend_handles_labels()
    if shown:
        handles.append(Line2D([], [], color="0.5", linewidth=3.5, label=f"while the {what} lasts"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    if title:
        figure.suptitle(title)
    save(figure, path)
