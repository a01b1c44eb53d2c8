"""Where the information lives: each layer's share of it through training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes

from critical_periods.plots.style import Point, number, save, subplots, window_name, window_of

_MEASURES = (
    ("fisher_trace", "Share of the Fisher trace (%)"),
    ("information", "Share of the nats by learned noise (%)"),
)


def plot_layers(rows: Sequence[Point], path: Path, title: str = "", what: str = "deficit") -> None:
    """Draws each layer's share of the information against the epoch, stacked from first to last.

    One column without a deficit, one for the earliest and one for the latest removal (or onset);
    one row for the Fisher trace and one for the information by learned noise, where they were
    measured. Dotted lines are the onset and the removal. Achille, Rovere & Soatto 2019: without a
    deficit the middle layers hold most of it, after a long blur the last ones do.

    Args:
        rows: of ``layers.csv``, of one variation.
        path: of the picture; its ending says which kind.
        title: above the panels.
        what: comes and goes: ``deficit``, or ``window`` for anything else.
    """
    windows = _chosen(rows)
    measures = [one for one in _MEASURES if any(number(row, one[0]) is not None for row in rows)]
    layers = list(dict.fromkeys(str(row["layer"]) for row in rows))
    size = (3.6 * len(windows) + 1.6, 3.2 * len(measures))
    figure, axes = subplots(len(measures), len(windows), size, sharey=True)
    for down, (measure, text) in enumerate(measures):
        for across, window in enumerate(windows):
            of_window = [row for row in rows if window_of(row) == window]
            _stack(axes[down][across], of_window, layers, measure)
            axes[down][across].set_title(window_name(window, what), fontsize="medium")
        axes[down][0].set_ylabel(text)
    for axis in axes[-1]:
        axis.set_xlabel("Epoch")
    handles, texts = axes[0][0].get_legend_handles_labels()
    # The last layer is on top, in the legend too.
    figure.legend(handles[::-1], texts[::-1], loc="outside right center", frameon=False)
    if title:
        figure.suptitle(title)
    save(figure, path)


def _stack(axis: Axes, rows: Sequence[Point], layers: Sequence[str], measure: str) -> None:
    values = {(str(row["layer"]), float(row["epoch"])): number(row, measure) for row in rows}
    epochs = sorted({epoch for (_, epoch), value in values.items() if value is not None})
    totals = {epoch: sum(values.get((layer, epoch)) or 0 for layer in layers) for epoch in epochs}
    shares = [
        [100 * (values.get((layer, epoch)) or 0) / (totals[epoch] or 1) for epoch in epochs]
        for layer in layers
    ]
    colours = colormaps["viridis"](
        [place / max(len(layers) - 1, 1) for place in range(len(layers))]
    )
    axis.stackplot(epochs, shares, labels=layers, colors=colours)
    onset, removal, _ = window_of(rows[0])
    for epoch in (onset, removal):
        if onset < removal and epochs[0] < epoch < epochs[-1]:
            axis.axvline(epoch, color="white", linestyle=":", linewidth=1.5)
    axis.margins(0)
    axis.set_ylim(0, 100)


def _chosen(rows: Sequence[Point]) -> list[tuple[float, float, float]]:
    """The longest clean run, and the deficits that come and go first and last."""
    windows = sorted({window_of(row) for row in rows}, key=lambda window: (window[:2], window[2]))
    clean = [window for window in windows if window[0] == window[1]][-1:]
    deficits = [window for window in windows if window[0] < window[1]]
    return list(dict.fromkeys([*clean, *deficits[:1], *deficits[-1:]]))
