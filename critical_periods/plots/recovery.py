"""How the gap that a deficit leaves closes as training goes on without it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from critical_periods.plots.style import (
    legend_below,
    lines,
    look_of,
    numbers,
    one_panel,
    window_word,
)

# Points of accuracy; gaps below, or of the other sign, are drawn there.
_LEAST = 0.05
# Between the points of one line and of the next, so that no bar hides another.
_BESIDE = 1.03


def plot_recovery(recovery: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draws the gap to clean runs of the same length against clean epochs, both by logarithm.

    A line for each variation and removal, a little beside the others: points are means over seeds,
    bars their intervals, and the curve is the law that was fitted to all seeds,
    gap = scar + size · (T / T₀)^-speed, with the verdict beside its name. What is below a twentieth
    of a point is drawn there, hollow. The dotted line is the margin of the verdict; ``ax`` is drawn
    into instead of a figure of its own.

    The table is that of a ladder, ``load_study(folder).recovery``.

    Example:
        >>> recovery = pd.DataFrame({
        ...     "onset": 0, "removal": 20, "epochs": [25, 40], "epochs_after": [5, 20],
        ...     "gap": [0.2, 0.05], "gap_low": [0.1, 0.01], "gap_high": [0.3, 0.09],
        ... })
        >>> plot_recovery(recovery).axes[0].get_xlabel()
        'Epochs without the deficit'
    """
    what = window_word(recovery)
    figure, axis = one_panel(ax, (6.0, 4.0))
    names = {
        ", ".join(filter(None, [name, f"epochs 0–{removal - 1}"])): rows
        for name, of in lines(recovery).items()
        for removal, rows in of.groupby("removal", sort=False)
    }
    for place, (name, rows) in enumerate(names.items()):
        colour, marker = look_of(place)
        low, gap, high = (100 * numbers(rows, f"gap{end}") for end in ("_low", "", "_high"))
        low, high = low.fillna(gap).clip(lower=_LEAST), high.fillna(gap).clip(lower=_LEAST)
        shown = gap.clip(lower=_LEAST)
        rungs = rows["epochs_after"] * _BESIDE ** (place - (len(names) - 1) / 2)
        verdict = next(iter(rows["verdict"].dropna()), "") if "verdict" in rows else ""
        axis.errorbar(
            rungs, shown, [shown - low, high - shown], color=colour, linestyle="none",
            marker=marker, capsize=3, label=f"{name}: {verdict}" if verdict else name,
        )  # fmt: skip
        hidden = gap < _LEAST
        axis.plot(
            rungs[hidden], shown[hidden], color=colour, linestyle="none", marker=marker,
            markerfacecolor="white", zorder=3,
        )  # fmt: skip
        law = [float(numbers(rows, column).iloc[0]) for column in ("scar", "size", "speed")]
        if np.isfinite(law).all():
            scar, size, speed = law
            times = np.geomspace(rungs.min(), rungs.max(), 100)
            fitted = 100 * (scar + size * (times / rungs.min()) ** -speed)
            axis.plot(times, fitted.clip(min=_LEAST), color=colour, linewidth=1)
    margins = 100 * numbers(recovery, "margin").dropna()
    if len(margins):
        axis.axhline(margins.iloc[0], color="0.5", linestyle=":", label="margin of the verdict")
    axis.set(xscale="log", yscale="log")
    axis.yaxis.set_major_formatter("{x:g}")
    rungs = sorted(recovery["epochs_after"].unique())
    axis.set_xticks(rungs, [str(rung) for rung in rungs])
    axis.minorticks_off()
    axis.set(xlabel=f"Epochs without the {what}", ylabel="Loss of final accuracy (points)")
    axis.spines[["top", "right"]].set_visible(False)
    if ax is None:
        legend_below(figure, axis.get_legend_handles_labels()[0])
    else:
        axis.legend(frameon=False, fontsize="small")
    if "design_changed" in recovery:
        axis.set_title("The design was changed after training had begun", fontsize="small")
    return figure
