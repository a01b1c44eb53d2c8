"""The sensitivity curve: how much a short deficit costs, by when it comes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from critical_periods.plots.style import (
    Point,
    by_length,
    lines,
    look_of,
    number,
    save,
    subplots,
)


def plot_sensitivity(
    points: Sequence[Point],
    traces: Sequence[Point],
    path: Path,
    title: str = "",
    what: str = "deficit",
) -> None:
    """Draws the loss of final accuracy against the onset of a window of fixed length.

    Behind it, where it was measured, stands the Fisher trace of the run without a deficit through
    its epochs (Achille, Rovere & Soatto 2019 draw the two together). Points are means over
    seeds of the paired differences, bars one standard deviation of them.

    Args:
        points: rows of ``curve.csv``.
        traces: rows of ``fisher.csv``; none where no Fisher trace was measured.
        path: of the picture; its ending says which kind.
        title: above the picture.
        what: comes and goes: ``deficit``, or ``window`` for anything else.
    """
    figure, ((axis,),) = subplots(1, 1, (5.6, 3.8))
    for place, (name, line) in enumerate(by_length(points).items()):
        line = [one for one in line if number(one, "final_accuracy_difference") is not None]
        line.sort(key=lambda one: float(one["onset"]))
        colour, marker = look_of(place)
        axis.errorbar(
            [float(one["onset"]) for one in line],
            [-100 * float(one["final_accuracy_difference"]) for one in line],
            [100 * (number(one, "final_accuracy_difference_sd") or 0) for one in line],
            color=colour,
            marker=marker,
            capsize=3,
            label=name,
        )
    axis.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    trace = _clean_trace(traces)
    axis.set_xlabel(f"Onset of the {what}" + (", or epoch" if trace else ""))
    axis.set_ylabel("Loss of final accuracy (points)")
    if trace:
        behind = axis.twinx()
        behind.fill_between(*zip(*trace, strict=True), color="0.85", zorder=0)
        behind.set_ylabel(f"Fisher trace without a {what}", color="0.4")
        behind.set_ylim(bottom=0)
        axis.set_zorder(behind.get_zorder() + 1)
        axis.patch.set_visible(False)
    axis.legend(frameon=False, fontsize="small")
    axis.set_title(title)
    save(figure, path)


def has_sensitivity(points: Sequence[Point]) -> bool:
    """Whether windows of one length vary in their onset."""
    windows = by_length(points).values()
    return any(len({float(point["onset"]) for point in line}) > 1 for line in windows)


def _clean_trace(traces: Sequence[Point]) -> list[tuple[float, float]]:
    """Epochs and Fisher traces of the longest run without a deficit."""
    clean = [one for one in traces if float(one["onset"]) == float(one["removal"])]
    if not clean:
        return []
    first = next(iter(lines(clean).values()))
    longest = max(float(one["epochs"]) for one in first)
    return sorted(
        (float(one["epoch"]), float(one["fisher_trace"]))
        for one in first
        if float(one["epochs"]) == longest
    )
