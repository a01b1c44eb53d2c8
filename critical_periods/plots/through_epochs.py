"""Usable information and errors of reconstruction through training, a panel for each window."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from critical_periods.plots.style import (
    COLOURS,
    by_window,
    numbers,
    shade,
    subplots,
    window_name,
    window_word,
)

_LOWEST = -0.5  # bits
_INFORMATION = {
    "information_both": "both views",
    "information_view_0": "view 0 (left) alone",
    "information_view_1": "view 1 (right) alone",
}
_RECONSTRUCTION = {
    "reconstruction_own_view": "from their own view",
    "reconstruction_other_view": "from another view",
    "reconstruction_both_views": "from both, half of each",
}


def plot_information(information: pd.DataFrame) -> Figure:
    """Draws usable information of both views and of each alone against the epoch.

    One panel without a deficit and one for each removal (or onset); the window is shaded. Lines are
    means over seeds, bands one standard deviation; at 0 bits the views tell nothing. What lies
    below -0.5 bits is not shown: while an eye is deprived, a network is confidently wrong about
    clear images, which it has never seen. Kleinman et al. 2023, Fig. 4 and 9.

    Args:
        information: the table of that name, of one variation.
    """
    measures = [name for name in information if name.startswith("information_")]
    names = {name: _INFORMATION.get(name, name) for name in measures if not name.endswith("_sd")}
    figure = _plot(information, names, "Usable information (bits)", level=0.0)
    axis = figure.axes[0]
    axis.set_ylim(bottom=max(axis.get_ylim()[0], _LOWEST))
    return figure


def plot_reconstruction(reconstruction: pd.DataFrame) -> Figure:
    """Draws the error on hidden patches against the epoch.

    Panels, lines and bands as :func:`plot_information` has them. The line at 1 is the error of
    predicting the patches' mean everywhere. Kleinman et al. 2023, Fig. 7.

    Args:
        reconstruction: the table of that name, of one variation.
    """
    label = "Error on hidden patches\n(share of their variance)"
    return _plot(reconstruction, _RECONSTRUCTION, label, level=1.0)


def _plot(table: pd.DataFrame, names: Mapping[str, str], label: str, level: float) -> Figure:
    """Draws columns by their names against the epoch, and a thin line at a level."""
    what, windows = window_word(table), by_window(table)
    size = (max(2.7 * len(windows), 6.2) + 0.8, 3.0)
    figure, axes = subplots(1, len(windows), size, sharey=True)
    for axis, (window, rows) in zip(axes[0], windows.items(), strict=True):
        for place, measure in enumerate(name for name in names if name in table):
            line = rows[rows[measure].notna()]
            epochs, values = line["epoch"], line[measure]
            spread = numbers(line, f"{measure}_sd").fillna(0)
            colour, style = COLOURS[place % len(COLOURS)], ("-", "--", ":", "-.")[place % 4]
            axis.plot(epochs, values, style, color=colour, label=names[measure])
            low, high = values - spread, values + spread
            axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        shade(axis, window)
        axis.spines[["top", "right"]].set_visible(False)
        axis.axhline(level, color="0.6", linewidth=0.8, zorder=0)
        axis.set_title(window_name(window, what), fontsize="medium")
        axis.set_xlabel("Epoch")
    axes[0][0].set_ylabel(label)
    handles, texts = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False)
    return figure
