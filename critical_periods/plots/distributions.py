"""Which eye the units listen to: histograms of RSV, removal after removal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from critical_periods.plots.style import COLOURS, Point, save, subplots, window_name, window_of


def plot_distributions(
    rows: Sequence[Point], path: Path, title: str = "", what: str = "deficit"
) -> None:
    """Draws the histograms of RSV in a row, from no deficit to the last removal.

    Filled: the runs with the deficit, by removal (or onset); the line: clean runs of the same
    length. +1 is a unit that varies with view 0 (left) alone, -1 with view 1 (right) alone; dotted
    lines at ±0.5 bound the polarised ones. One row of panels for a layer's units, one for its
    channels averaged over positions. The layout of Kleinman et al. 2023, Fig. 4 and 6.

    Args:
        rows: of ``rsv.csv``, of one variation.
        path: of the picture; its ending says which kind.
        title: above the panels.
        what: comes and goes: ``deficit``, or ``window`` for anything else.
    """
    windows = sorted({window_of(row) for row in rows}, key=lambda window: (window[1], window))
    clean = [window for window in windows if window[0] == window[1]]
    shown = [*clean[:1], *(window for window in windows if window[0] < window[1])]
    layers = list(dict.fromkeys(str(row["layer"]) for row in rows))
    size = (max(1.9 * len(shown), 4) + 0.6, 2.1 * len(layers) + 0.4)
    figure, axes = subplots(len(layers), len(shown), size, sharex=True, sharey="row")
    for down, layer in enumerate(layers):
        for across, window in enumerate(shown):
            axis = axes[down][across]
            bars = [row for row in rows if row["layer"] == layer and window_of(row) == window]
            control = (0.0, 0.0, window[2])
            line = [row for row in rows if row["layer"] == layer and window_of(row) == control]
            _histogram(axis, bars, line if control != window else [], what)
            if down == 0:
                axis.set_title(window_name(window, what), fontsize="medium")
        axes[down][0].set_ylabel(f"{layer}\nShare of units (%)", fontsize="small")
    for axis in axes[-1]:
        axis.set_xlabel("RSV")
    handles, texts = axes[0][-1].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False)
    if title:
        figure.suptitle(title)
    save(figure, path)


def _histogram(axis: Axes, bars: Sequence[Point], line: Sequence[Point], what: str) -> None:
    deficit = bool(bars) and window_of(bars[0])[0] < window_of(bars[0])[1]
    edges = [float(row["low"]) for row in bars] + [float(row["high"]) for row in bars[-1:]]
    axis.stairs(
        [100 * float(row["share"]) for row in bars], edges, fill=True,
        color=COLOURS[0] if deficit else "0.7", label=f"after the {what}" if deficit else None,
    )  # fmt: skip
    if line:
        values = [100 * float(row["share"]) for row in line]
        label = f"no {what}, as many epochs"
        axis.stairs(values, edges, color="black", linewidth=1.0, label=label)
    for edge in (-0.5, 0.5):
        axis.axvline(edge, color="0.5", linestyle=":", linewidth=0.8)
    axis.set_xticks([-1, 0, 1])
    axis.spines[["top", "right"]].set_visible(False)
