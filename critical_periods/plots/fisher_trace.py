"""The Fisher trace of the whole network through training, with and without a deficit."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from critical_periods.plots.style import by_window, numbers, one_panel, window_name, window_word


def plot_fisher(fisher: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draws the Fisher trace of the whole network against the epoch, a line for each window.

    Lines are means over seeds, bands one standard deviation; a line is broad while its window is
    open, and the one without a window is black and dashed. Achille, Rovere & Soatto 2019 show the
    trace of both, and read from it when a network learns most from its data.

    Args:
        fisher: the table of that name, of one variation.
        ax: drawn into instead of a figure of its own.
    """
    what, windows = window_word(fisher), by_window(fisher)
    deficits = [window for window in windows if window[0] < window[1]]
    colours = iter(colormaps["viridis"](np.linspace(0, 0.9, len(deficits))))
    figure, axis = one_panel(ax, (7.2, 3.6))
    for window, line in windows.items():
        is_clean = window[0] == window[1]
        colour, style = ("black", "--") if is_clean else (next(colours), "-")
        epochs, traces = line["epoch"], line["fisher_trace"]
        spread = numbers(line, "fisher_trace_sd").fillna(0)
        name = window_name(window, what)
        axis.plot(epochs, traces, style, color=colour, linewidth=1.2, label=name)
        axis.fill_between(epochs, traces - spread, traces + spread, color=colour, alpha=0.2, lw=0)
        is_open = (window[0] <= epochs) & (epochs < window[1])
        axis.plot(epochs[is_open], traces[is_open], color=colour, linewidth=3.5, alpha=0.6)
    axis.set_ylim(bottom=0)
    axis.set_xlabel("Epoch")
    axis.set_ylabel("Trace of the Fisher information")
    axis.spines[["top", "right"]].set_visible(False)
    handles, _ = axis.get_legend_handles_labels()
    if deficits:
        handles.append(Line2D([], [], color="0.5", linewidth=3.5, label=f"while the {what} lasts"))
    if ax is None:
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    else:
        axis.legend(handles=handles, frameon=False, fontsize="small")
    return figure
