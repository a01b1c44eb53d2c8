"""Histograms of relative source variance (RSV): of trained networks, and beside a closed form."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from critical_periods.metrics.functional.rsv_summary import polarization, rsv_histogram
from critical_periods.plots.style import (
    COLOURS,
    Window,
    by_window,
    subplots,
    window_name,
    window_word,
)


def plot_rsv(rsv: pd.DataFrame) -> Figure:
    """Draws the histograms of RSV in a row, from no deficit to the last removal.

    Filled: the runs with the deficit, by removal (or onset); the line: clean runs of the same
    length. +1 is a unit that varies with view 0 (left) alone, -1 with view 1 (right) alone; dotted
    lines at ±0.5 bound the polarised ones. One row of panels for a layer's units, one for its
    channels averaged over positions. The table is that of one variation. The layout of Kleinman et
    al. 2023, Fig. 4 and 6.
    """
    what = window_word(rsv)
    groups = dict(iter(rsv.groupby(["layer", "onset", "removal", "epochs"])))
    windows = sorted({key[1:] for key in groups}, key=lambda window: (window[1], window))
    clean = [window for window in windows if window[0] == window[1]]
    shown = [*clean[:1], *(window for window in windows if window[0] < window[1])]
    layers = list(rsv["layer"].unique())
    size = (max(1.9 * len(shown), 4) + 0.6, 2.1 * len(layers) + 0.4)
    figure, axes = subplots(len(layers), len(shown), size, sharex=True, sharey="row")
    for row, layer in zip(axes, layers, strict=True):
        for axis, window in zip(row, shown, strict=True):
            control = (0, 0, window[2])
            line = None if window == control else groups.get((layer, *control))
            _histogram(axis, window, groups[layer, *window], line, what)
        row[0].set_ylabel(f"{layer}\nShare of units (%)", fontsize="small")
    for axis, window in zip(axes[0], shown, strict=True):
        axis.set_title(window_name(window, what), fontsize="medium")
    for axis in axes[-1]:
        axis.set_xlabel("RSV")
    handles, texts = axes[0][-1].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False)
    return figure


def plot_rsv_through_epochs(rsv: pd.DataFrame) -> Figure:
    """Draws the histograms of RSV against the epoch, as shares of units from light to dark.

    One row of panels for each layer, one column for each window. The table is that of one
    variation, with columns ``layer``, ``epoch``, ``low``, ``high`` and ``share``.
    """
    what, windows = window_word(rsv), by_window(rsv)
    layers = list(rsv["layer"].unique())
    size = (max(1.9 * len(windows), 4) + 0.6, 2.1 * len(layers) + 0.4)
    figure, axes = subplots(len(layers), len(windows), size, sharex=True, sharey=True)
    for row, layer in zip(axes, layers, strict=True):
        for axis, (window, rows) in zip(row, windows.items(), strict=True):
            shares = rows[rows["layer"] == layer].pivot(
                index="low", columns="epoch", values="share"
            )
            axis.pcolormesh(shares.columns, shares.index + 1 / len(shares), shares, cmap="Greys")
            for epoch in window[:2]:
                if window[0] < window[1]:
                    axis.axvline(epoch, color=COLOURS[0], linestyle=":", linewidth=1.0)
        row[0].set_ylabel(f"{layer}\nRSV", fontsize="small")
    for axis, window in zip(axes[0], windows, strict=True):
        axis.set_title(window_name(window, what), fontsize="medium")
    for axis in axes[-1]:
        axis.set_xlabel("Epoch")
    return figure


def _histogram(
    axis: Axes, window: Window, bins: pd.DataFrame, control: pd.DataFrame | None, what: str
) -> None:
    edges = [*bins["low"], bins["high"].iloc[-1]]
    colour, label = (COLOURS[0], f"after the {what}") if window[0] < window[1] else ("0.7", None)
    axis.stairs(100 * bins["share"], edges, fill=True, color=colour, label=label)
    if control is not None:
        label = f"no {what}, as many epochs"
        axis.stairs(100 * control["share"], edges, color="black", linewidth=1.0, label=label)
    for edge in (-0.5, 0.5):
        axis.axvline(edge, color="0.5", linestyle=":", linewidth=0.8)
    axis.set_xticks([-1, 0, 1])
    axis.spines[["top", "right"]].set_visible(False)


def plot_synthetic_rsv(
    measured: Sequence[tuple[str, Tensor, Callable[[np.ndarray], np.ndarray]]],
) -> Figure:
    """Draws histograms of 40 bins of RSVs in a row, each with the closed form's distribution.

    This is Fig. 3 of Kleinman, Achille & Soatto (CVPR 2023).

    Args:
        measured: of each representation its name, the RSVs of its units, and the distribution
            function of RSV that the closed form has for it, such as
            :func:`critical_periods.linear.rsv_cdf`.
    """
    figure, axes = subplots(1, len(measured), (2.7 * len(measured), 3))
    for axis, (name, rsv, cdf) in zip(axes[0], measured, strict=True):
        counts, edges = rsv_histogram(rsv)
        expected = np.diff(cdf(edges.numpy()))
        shares = 100 * counts.numpy() / int(counts.sum())
        axis.stairs(shares, edges.numpy(), fill=True, color=COLOURS[5], label="measured")
        closed: dict[str, Any] = {"baseline": None, "color": COLOURS[6], "label": "closed form"}
        axis.stairs(100 * expected, edges.numpy(), **closed)
        share = 100 * float(polarization(rsv))
        axis.set_title(f"{name}\n{share:.0f} % polarised", fontsize="medium")
        axis.set(xlim=(-1, 1), xlabel="RSV")
    axes[0][0].set_ylabel("Units (%)")
    axes[0][0].legend(frameon=False, fontsize="small", loc="upper right")
    return figure
