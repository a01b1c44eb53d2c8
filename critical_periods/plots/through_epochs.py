"""What was measured through training: Fisher traces, layers, information, reconstruction, modes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from critical_periods.plots.style import (
    COLOURS,
    MARKERS,
    by_window,
    legend_below,
    numbers,
    one_panel,
    spread,
    subplots,
    window_name,
    window_word,
)

_SHARES = {
    "fisher_trace": "Share of the Fisher trace (%)",
    "information": "Share of the nats by learned noise (%)",
}
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


def plot_fisher(fisher: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draws the Fisher trace of the whole network against the epoch, a line for each window.

    As :func:`plot_measure` draws it. Achille, Rovere & Soatto 2019 show the trace with a deficit
    and without one, and read from it when a network learns most from its data.
    """
    figure = plot_measure(fisher, "fisher_trace", "Trace of the Fisher information", ax)
    (ax or figure.axes[0]).set_ylim(bottom=0)
    return figure


def plot_success(agent: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draws the success of an agent against the epoch, a line for each window.

    As :func:`plot_measure` draws it; the table is that of a study, ``load_study(folder).agent``.
    """
    figure = plot_measure(agent, "success", "Success on unseen layouts", ax)
    (ax or figure.axes[0]).set_ylim(0, 1)
    return figure


def plot_measure(table: pd.DataFrame, column: str, label: str, ax: Axes | None = None) -> Figure:
    """Draws a measure of one variation against the epoch, a line for each window.

    Lines are means over seeds, bands one standard deviation; a line is broad while its window is
    open, and the one without a window is black and dashed. ``label`` is the axis's; ``ax`` is drawn
    into instead of a figure of its own.
    """
    what, windows = window_word(table), by_window(table)
    deficits = [window for window in windows if window[0] < window[1]]
    colours = iter(colormaps["viridis"](np.linspace(0, 0.9, len(deficits))))
    figure, axis = one_panel(ax, (7.2, 3.6))
    for window, line in windows.items():
        is_clean = window[0] == window[1]
        colour, style = ("black", "--") if is_clean else (next(colours), "-")
        epochs, values = line["epoch"], line[column]
        _line(axis, line, column, style, colour, window_name(window, what), 1.2)
        is_open = (window[0] <= epochs) & (epochs < window[1])
        axis.plot(epochs[is_open], values[is_open], color=colour, linewidth=3.5, alpha=0.6)
    axis.set(xlabel="Epoch", ylabel=label)
    axis.spines[["top", "right"]].set_visible(False)
    handles, _ = axis.get_legend_handles_labels()
    if deficits:
        handles.append(Line2D([], [], color="0.5", linewidth=3.5, label=f"while the {what} lasts"))
    if ax is None:
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    else:
        axis.legend(handles=handles, frameon=False, fontsize="small")
    return figure


def plot_layers(layers: pd.DataFrame) -> Figure:
    """Draws each layer's share of the information against the epoch, stacked from first to last.

    One column without a deficit, one for the earliest and one for the latest removal (or onset);
    one row for the Fisher trace and one for the information by learned noise, where they were
    measured. Dotted lines are the onset and the removal. Achille, Rovere & Soatto 2019: without a
    deficit the middle layers hold most of it, after a long blur the last ones do. The table is that
    of one variation.
    """
    what, windows = window_word(layers), by_window(layers)
    clean = [window for window in windows if window[0] == window[1]]
    deficits = [window for window in windows if window[0] < window[1]]
    shown = list(dict.fromkeys([*clean, *deficits[:1], *deficits[-1:]]))
    measures = [measure for measure in _SHARES if numbers(layers, measure).notna().any()]
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
        row[0].set_ylabel(_SHARES[measure])
    for axis in axes[-1]:
        axis.set_xlabel("Epoch")
    handles, texts = axes[0][0].get_legend_handles_labels()
    # The last layer is on top, in the legend too.
    figure.legend(handles[::-1], texts[::-1], loc="outside right center", frameon=False)
    return figure


def plot_information(information: pd.DataFrame) -> Figure:
    """Draws usable information of both views and of each alone against the epoch.

    One panel without a deficit and one for each removal (or onset); the window is shaded. Lines are
    means over seeds, bands one standard deviation; at 0 bits the views tell nothing. What lies
    below -0.5 bits is not shown: while an eye is deprived, a network is confidently wrong about
    clear images, which it has never seen. The table is that of one variation. Kleinman et al. 2023,
    Fig. 4 and 9.
    """
    measures = [name for name in information if name.startswith("information_")]
    names = {name: _INFORMATION.get(name, name) for name in measures if not name.endswith("_sd")}
    figure = _plot(information, names, "Usable information (bits)", level=0.0)
    axis = figure.axes[0]
    axis.set_ylim(bottom=max(axis.get_ylim()[0], _LOWEST))
    return figure


def plot_reconstruction(reconstruction: pd.DataFrame) -> Figure:
    """Draws the error on hidden patches against the epoch.

    Table, panels, lines and bands as :func:`plot_information` has them. The line at 1 is the error
    of predicting the patches' mean everywhere. Kleinman et al. 2023, Fig. 7.
    """
    label = "Error on hidden patches\n(share of their variance)"
    return _plot(reconstruction, _RECONSTRUCTION, label, level=1.0)


def _plot(table: pd.DataFrame, names: Mapping[str, str], label: str, level: float) -> Figure:
    """Draws columns by their names against the epoch, and a thin line at a level."""
    figure, panels = _panels(table, width=2.7, least=6.2, more=0.8, height=3.0)
    for axis, rows in panels:
        for place, measure in enumerate(name for name in names if name in table):
            colour, style = COLOURS[place % len(COLOURS)], ("-", "--", ":", "-.")[place % 4]
            line = rows[rows[measure].notna()]
            _line(axis, line, measure, style, colour, names[measure])
        axis.axhline(level, color="0.6", linewidth=0.8, zorder=0)
    axis = panels[0][0]
    axis.set_ylabel(label)
    handles, texts = axis.get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False)
    return figure


def _line(
    axis: Axes, line: pd.DataFrame, column: str, style: str, colour: Any, label: str,
    width: float | None = None,
) -> None:  # fmt: skip
    """A mean against the epoch, with a band of one standard deviation."""
    epochs, means, deviations = line["epoch"], line[column], spread(line, column)
    axis.plot(epochs, means, style, color=colour, linewidth=width, label=label)
    low, high = means - deviations, means + deviations
    axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)


def _panels(
    table: pd.DataFrame, width: float, least: float, more: float, height: float
) -> tuple[Figure, list[tuple[Axes, pd.DataFrame]]]:
    """A figure with a panel and the rows of each window, in which that is shaded."""
    what, windows = window_word(table), by_window(table)
    # However few the panels, the legend below them needs its width.
    size = (max(width * len(windows), least) + more, height)
    figure, axes = subplots(1, len(windows), size, sharey=True)
    for axis, window in zip(axes[0], windows, strict=True):
        if window[0] < window[1]:
            axis.axvspan(window[0], window[1], color="0.9", zorder=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_title(window_name(window, what), fontsize="medium")
        axis.set_xlabel("Epoch")
    return figure, list(zip(axes[0], windows.values(), strict=True))


def plot_modes(modes: pd.DataFrame) -> Figure:
    """Draws the strength of every mode in every path against the epoch, with theory over it.

    One panel without a deficit and one for each onset (or removal); the window is shaded. Markers
    are the simulation, one kind a path, lines the ODE; the colour says which mode, from the
    strongest, dark, to the weakest, light. The table is that of one variation. Kleinman, Achille &
    Soatto (ICLR 2024), Fig. 2.
    """
    paths, places = (sorted(modes[name].unique()) for name in ("path", "mode"))
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(places)))
    colour_of = dict(zip(places, colours, strict=True))
    markers = {path: MARKERS[path % len(MARKERS)] for path in paths}
    figure, panels = _panels(modes, width=2.9, least=5.2, more=0.6, height=3.2)
    for axis, rows in panels:
        for (mode, path), line in rows.sort_values("epoch").groupby(["mode", "path"]):
            axis.plot(line["epoch"], line["ode"], color=colour_of[mode], linewidth=1)
            # Two dozen markers a line can be told apart.
            few = line.iloc[:: max(1, len(line) // 24)]
            axis.plot(
                few["epoch"], few["strength"], color=colour_of[mode], linestyle="none",
                marker=markers[path], markersize=4, markerfacecolor="none",
            )  # fmt: skip
    panels[0][0].set_ylabel("Strength of the mode in the path")
    handles: list[Artist] = [
        Line2D([], [], color="0.3", linestyle="none", marker=marker, markerfacecolor="none",
               label=f"path {path}, simulated")
        for path, marker in markers.items()
    ]  # fmt: skip
    handles.append(Line2D([], [], color="0.3", label="ODE"))
    if len(places) > 1:
        ends = {"strongest mode": colours[0], "weakest mode": colours[-1]}
        handles += [Patch(color=colour, label=name) for name, colour in ends.items()]
    legend_below(figure, handles)
    return figure
