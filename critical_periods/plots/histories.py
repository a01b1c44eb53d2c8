"""Measures through training, a panel for each window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from critical_periods.plots.style import (
    COLOURS,
    Point,
    number,
    save,
    subplots,
    window_name,
    window_of,
)


def plot_histories(
    rows: Sequence[Point],
    path: Path,
    title: str,
    names: Mapping[str, str],
    label: str,
    level: float,
    lowest: float | None = None,
    what: str = "deficit",
) -> None:
    """Draws measures against the epoch.

    One panel without a deficit and one for each removal (or onset); the window is shaded. Lines are
    means over seeds, bands one standard deviation.

    Args:
        rows: of a table of histories, of one variation.
        path: of the picture; its ending says which kind.
        title: above the panels.
        names: the columns that are drawn, those of them that the rows have, and what the legend
            calls them.
        label: of the vertical axis.
        level: where a thin line says what knowing nothing would give.
        lowest: what lies below it is not shown.
        what: comes and goes: ``deficit``, or ``window`` for anything else.
    """
    windows = sorted({window_of(row) for row in rows}, key=lambda window: (window[:2], window[2]))
    clean = [window for window in windows if window[0] == window[1]]
    shown = [*clean[-1:], *(window for window in windows if window[0] < window[1])]
    size = (max(2.7 * len(shown), 6.2) + 0.8, 3.0)
    figure, axes = subplots(1, len(shown), size, sharey=True)
    for axis, window in zip(axes[0], shown, strict=True):
        _panel(axis, [row for row in rows if window_of(row) == window], names)
        axis.axhline(level, color="0.6", linewidth=0.8, zorder=0)
        axis.set_title(window_name(window, what), fontsize="medium")
        axis.set_xlabel("Epoch")
    if lowest is not None:
        axes[0][0].set_ylim(bottom=max(axes[0][0].get_ylim()[0], lowest))
    axes[0][0].set_ylabel(label)
    handles, texts = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False)
    if title:
        figure.suptitle(title)
    save(figure, path)


def _panel(axis: Axes, rows: Sequence[Point], names: Mapping[str, str]) -> None:
    for place, measure in enumerate(name for name in names if name in rows[0]):
        of_measure = [row for row in rows if number(row, measure) is not None]
        epochs = [float(row["epoch"]) for row in of_measure]
        values = [float(row[measure]) for row in of_measure]
        spread = [number(row, f"{measure}_sd") or 0.0 for row in of_measure]
        colour = COLOURS[place % len(COLOURS)]
        style = ("-", "--", ":", "-.")[place % 4]
        axis.plot(epochs, values, style, color=colour, label=names[measure])
        low = [value - sd for value, sd in zip(values, spread, strict=True)]
        high = [value + sd for value, sd in zip(values, spread, strict=True)]
        axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    onset, removal, _ = window_of(rows[0])
    if onset < removal:
        axis.axvspan(onset, removal, color="0.9", zorder=0)
    axis.spines[["top", "right"]].set_visible(False)
