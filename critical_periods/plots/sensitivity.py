"""The sensitivity curve: how much a short deficit costs, by when it comes."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from critical_periods.plots.style import (
    by_length,
    by_window,
    lines,
    look_of,
    numbers,
    one_panel,
    window_word,
)


def plot_sensitivity(
    curve: pd.DataFrame, fisher: pd.DataFrame | None = None, ax: Axes | None = None
) -> Figure:
    """Draws the loss of final accuracy against the onset of a window of fixed length.

    Behind it, where it was measured, stands the Fisher trace of the run without a deficit through
    its epochs (Achille, Rovere & Soatto 2019 draw the two together). Points are means over
    seeds of the paired differences, bars one standard deviation of them.

    Args:
        curve: the table of that name.
        fisher: the table of Fisher traces, if they were measured.
        ax: drawn into instead of a figure of its own.
    """
    what = window_word(curve)
    figure, axis = one_panel(ax, (5.6, 3.8))
    for place, (name, line) in enumerate(by_length(curve).items()):
        losses = -100 * numbers(line, "final_accuracy_difference").dropna()
        line = line.loc[losses.index].sort_values("onset", kind="stable")
        spreads = 100 * numbers(line, "final_accuracy_difference_sd").fillna(0)
        colour, marker = look_of(place)
        axis.errorbar(
            line["onset"], losses[line.index], spreads, color=colour, marker=marker, capsize=3,
            label=name,
        )  # fmt: skip
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axis.set_xlabel(f"Onset of the {what}")
    axis.set_ylabel("Loss of final accuracy (points)")
    if fisher is not None and (fisher["onset"] == fisher["removal"]).any():
        clean = fisher[fisher["onset"] == fisher["removal"]]
        trace = next(iter(by_window(next(iter(lines(clean).values()))).values()))
        behind = axis.twinx()
        behind.fill_between(trace["epoch"], trace["fisher_trace"], color="0.85", zorder=0)
        behind.set_ylabel(f"Fisher trace without a {what}", color="0.4")
        behind.set_ylim(bottom=0)
        axis.set_xlabel(f"Onset of the {what}, or epoch")
        axis.set_zorder(behind.get_zorder() + 1)
        axis.patch.set_visible(False)
    axis.legend(frameon=False, fontsize="small")
    return figure


def has_sensitivity(curve: pd.DataFrame) -> bool:
    """Whether windows of one length vary in their onset."""
    return any(line["onset"].nunique() > 1 for line in by_length(curve).values())
