"""The extent of the impairment as a surface: two settings against each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from critical_periods.plots.style import Point, axis_name, number, save, subplots, varied


def surface_axes(points: Sequence[Point]) -> tuple[str, str] | None:
    """The two settings that span a surface, or ``None`` where the points span none.

    These are the onset and the ``length`` of the window, or, where one numeric field is varied,
    the removal (or onset) and that field.

    Args:
        points: rows of ``curve.csv``.
    """
    deficits = [point for point in points if _length(point) > 0]
    if not deficits:
        return None
    onsets = {float(point["onset"]) for point in deficits}
    lengths = {_length(point) for point in deficits}
    # Windows on a line in that plane, as those from each onset to the end, do not span it.
    windows = {(float(point["onset"]), _length(point)) for point in deficits}
    is_plane = len(windows) > max(len(onsets), len(lengths))
    names = varied(deficits)
    if not names and is_plane:
        return "onset", "length"
    if len(names) == 1 and not is_plane and all(_is_number(point[names[0]]) for point in deficits):
        return ("onset" if len(onsets) > 1 else "removal"), names[0]
    return None


def plot_surface(
    points: Sequence[Point], path: Path, title: str = "", what: str = "deficit"
) -> None:
    """Draws the loss of final accuracy as a heat map over two settings, with its numbers.

    Cells are means over seeds of the paired differences to the runs without a deficit; settings
    that were not run stay white.

    Args:
        points: rows of ``curve.csv`` for which :func:`surface_axes` finds two settings.
        path: of the picture; its ending says which kind.
        title: above the picture.
        what: comes and goes: ``deficit``, or ``window`` for anything else.
    """
    axes = surface_axes(points)
    assert axes is not None
    across, up = axes
    losses = {}
    for point in points:
        difference = number(point, "final_accuracy_difference")
        if difference is not None and _length(point) > 0:
            losses[_value(point, across), _value(point, up)] = -100 * difference
    columns, rows = (sorted({place[axis] for place in losses}) for axis in (0, 1))
    table = np.array([[losses.get((x, y), np.nan) for x in columns] for y in rows])
    # However few the columns, the title needs its width.
    size = (max(1.8 + 0.8 * len(columns), 5.0), 1.6 + 0.5 * len(rows))
    figure, ((axis,),) = subplots(1, 1, size)
    # Cells say tenths of a point: a finer scale would only be read with powers of ten beside it.
    largest = max(float(np.nanmax(np.abs(table))), 0.1)
    picture = axis.imshow(
        table,
        origin="lower",
        aspect="auto",
        cmap="cividis",
        vmin=min(0.0, float(np.nanmin(table))),
        vmax=largest,
    )
    for row, column in np.ndindex(table.shape):
        value = table[row, column]
        if not np.isnan(value):
            shade = "black" if value > 0.6 * largest else "white"
            axis.text(column, row, f"{value:z.1f}", ha="center", va="center", color=shade)
    axis.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axis.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axis.set_xlabel(axis_name(across, what))
    axis.set_ylabel(axis_name(up, what))
    figure.colorbar(picture, label="Loss of final accuracy (points)")
    if title:
        figure.suptitle(title)
    save(figure, path)


def _value(point: Point, name: str) -> float:
    return _length(point) if name == "length" else float(point[name])


def _length(point: Point) -> float:
    return float(point["removal"]) - float(point["onset"])


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
