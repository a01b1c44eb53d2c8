"""What the eyes tell, together and alone, through training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from critical_periods.plots.style import COLOURS, Point, number, save, window_name, window_of

# In bits.
_LOWEST = -0.5
_NAMES = {
    "information_both": "both views",
    "information_view_0": "view 0 (left) alone",
    "information_view_1": "view 1 (right) alone",
}


def plot_information(rows: Sequence[Point], path: Path, title: str = "") -> None:
    """Draws usable information of both views and of each alone against the epoch.

    One panel without a deficit and one for each removal (or onset); the window is shaded. Lines are
    means over seeds, bands one standard deviation. What lies below -0.5 bits is not shown: inside
    the window networks are confidently wrong about good sight, which they have never met.
    Kleinman et al. 2023, Fig. 4 and 9.

    Args:
        rows: of ``information.csv``, of one variation.
        path: of the picture; its ending says which kind.
        title: above the panels.
    """
    windows = sorted({window_of(row) for row in rows}, key=lambda window: (window[:2], window[2]))
    clean = [window for window in windows if window[0] == window[1]]
    shown = [*clean[-1:], *(window for window in windows if window[0] < window[1])]
    measures = [name for name in rows[0] if name.startswith("information_")]
    measures = [name for name in measures if not name.endswith("_sd")]
    figure, axes = plt.subplots(
        1, len(shown), figsize=(2.7 * len(shown) + 0.8, 3.0),
        squeeze=False, sharey=True, layout="constrained",
    )  # fmt: skip
    for axis, window in zip(axes[0], shown, strict=True):
        _panel(axis, [row for row in rows if window_of(row) == window], measures)
        axis.set_title(window_name(window), fontsize="medium")
        axis.set_xlabel("Epoch")
    axes[0][0].set_ylim(bottom=max(axes[0][0].get_ylim()[0], _LOWEST))
    axes[0][0].set_ylabel("Usable information (bits)")
    handles, texts = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside lower center", ncols=len(texts), frameon=False)
    if title:
        figure.suptitle(title)
    save(figure, path)


def _panel(axis: Axes, rows: Sequence[Point], measures: Sequence[str]) -> None:
    for place, measure in enumerate(measures):
        of_measure = [row for row in rows if number(row, measure) is not None]
        epochs = [float(row["epoch"]) for row in of_measure]
        values = [float(row[measure]) for row in of_measure]
        spread = [number(row, f"{measure}_sd") or 0.0 for row in of_measure]
        colour = COLOURS[place % len(COLOURS)]
        style = ("-", "--", ":", "-.")[place % 4]
        axis.plot(epochs, values, style, color=colour, label=_NAMES.get(measure, measure))
        low = [value - sd for value, sd in zip(values, spread, strict=True)]
        high = [value + sd for value, sd in zip(values, spread, strict=True)]
        axis.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
    onset, removal, _ = window_of(rows[0])
    if onset < removal:
        axis.axvspan(onset, removal, color="0.9", zorder=0)
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axis.spines[["top", "right"]].set_visible(False)
