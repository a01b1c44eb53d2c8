"""Where the information lies: each layer's share of it through training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from critical_periods.plots.style import by_window, numbers, subplots, window_name, window_word

_MEASURES = {
    "fisher_trace": "Share of the Fisher trace (%)",
    "information": "Share of the nats by learned noise (%)",
}


def plot_layers(layers: pd.DataFrame) -> Figure:
    """Draws each layer's share of the information against the epoch, stacked from first to last.

    One column without a deficit, one for the earliest and one for the latest removal (or onset);
    one row for the Fisher trace and one for the information by learned noise, where they were
    measured. Dotted lines are the onset and the removal. Achille, Rovere & Soatto 2019: without a
    deficit the middle layers hold most of it, after a long blur the last ones do.

    Args:
        layers: the table of that name, of one variation.
    """
    what, windows = window_word(layers), by_window(layers)
    clean = [window for window in windows if window[0] == window[1]]
    deficits = [window for window in windows if window[0] < window[1]]
    shown = list(dict.fromkeys([*clean, *deficits[:1], *deficits[-1:]]))
    measures = [measure for measure in _MEASURES if numbers(layers, measure).notna().any()]
    names = list(layers["layer"].unique())
    colours = colormaps["viridis"](np.arange(len(names)) / max(len(names) - 1, 1))
    size = (3.6 * len(shown) + 1.6, 3.2 * len(measures))
    figure, axes = subplots(len(measures), len(shown), size, sharey=True)
    for row, measure in zip(axes, measures, strict=True):
        for axis, (onset, removal, epochs) in zip(row, shown, strict=True):
            measured = windows[onset, removal, epochs].dropna(subset=measure)
            table = measured.pivot(index="epoch", columns="layer", values=measure)
            table = table.reindex(columns=names).fillna(0)
            totals = table.sum(axis="columns").replace(0, 1)
            shares = 100 * table.div(totals, axis="index")
            axis.stackplot(table.index, shares.T, labels=names, colors=colours)
            for epoch in (onset, removal):
                if onset < removal and table.index[0] < epoch < table.index[-1]:
                    axis.axvline(epoch, color="white", linestyle=":", linewidth=1.5)
            axis.margins(0)
            axis.set_ylim(0, 100)
            axis.set_title(window_name((onset, removal, epochs), what), fontsize="medium")
        row[0].set_ylabel(_MEASURES[measure])
    for axis in axes[-1]:
        axis.set_xlabel("Epoch")
    handles, texts = axes[0][0].get_legend_handles_labels()
    # The last layer is on top, in the legend too.
    figure.legend(handles[::-1], texts[::-1], loc="outside right center", frameon=False)
    return figure
