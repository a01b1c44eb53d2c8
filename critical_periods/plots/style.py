"""What all figures share: colours that all can tell apart, and files that are never half there."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.container import Container
from matplotlib.figure import Figure
from numpy.typing import NDArray

from critical_periods.plots.labels import label_of

# Okabe & Ito 2008: told apart by colour-blind readers and in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<P"


def look_of(place: int) -> tuple[str, str]:
    """Colour and marker of a line; both repeat after 49 lines alone.

    Example:
        >>> [look_of(place) for place in (0, 1, 7)]
        [('#0072B2', 'o'), ('#D55E00', 's'), ('#0072B2', 's')]
    """
    rounds, colour = divmod(place, len(COLOURS))
    return COLOURS[colour], MARKERS[(place + rounds) % len(MARKERS)]


Point = Mapping[str, Any]


def subplots(
    rows: int, columns: int, size: tuple[float, float], **shared: Any
) -> tuple[Figure, NDArray[np.object_]]:
    """A figure of rows and columns of panels, made without pyplot.

    pyplot keeps every figure until it is closed, and has one backend for the whole process: a
    figure of ours must not change what a notebook shows of its own.

    Args:
        rows: of panels.
        columns: of panels.
        size: width and height in inches.
        shared: ``sharex`` and ``sharey``, as matplotlib takes them.

    Returns:
        The figure and its axes, [rows, columns].

    Example:
        >>> figure, ((left, right),) = subplots(1, 2, (6, 3), sharey=True)
        >>> len(figure.axes)
        2
    """
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def save(figure: Figure, path: Path) -> None:
    """Writes a picture beside its place, then renames it; its ending says which kind."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part{path.suffix}")
    # A date inside would make the same figure another file each time.
    figure.savefig(
        beside, dpi=150, metadata={"CreationDate": None} if path.suffix == ".pdf" else {}
    )
    os.replace(beside, path)


def legend_below(figure: Figure, handles: Sequence[Artist | Container]) -> None:
    """Puts a legend under the panels, in as many columns as fit, and makes the figure higher."""
    for columns in range(len(handles), 0, -1):
        legend = figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, frameon=False,
            fontsize="small",
        )  # fmt: skip
        size = legend.get_window_extent()
        if size.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + size.height / figure.dpi)


def number(point: Point, column: str) -> float | None:
    """A cell as a number; ``None`` where it is empty or nan."""
    value = point.get(column)
    if value is None or value == "":
        return None
    found = float(value)
    return None if found != found else found


def lines(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points by what sets them apart: variant and varied fields, which stand before ``onset``."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(label(point), []).append(point)
    return found


def by_length(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points with a deficit by what sets them apart and by the length of their windows."""
    found: dict[str, list[Point]] = {}
    for name, line in lines(points).items():
        for point in line:
            length = round(float(point["removal"]) - float(point["onset"]))
            if length > 0:
                text = f"{length} epoch{'s' * (length > 1)}"
                found.setdefault(f"{name}, {text}" if name else text, []).append(point)
    return found


def label(point: Point) -> str:
    """The variant and the varied fields of a row, as a legend says them.

    Example:
        >>> label({"variant": "blur", "model.init_args.network.init_args.width": 8, "onset": 0})
        'blur, width = 8'
    """
    columns = list(point)
    return label_of({name: point[name] for name in columns[: columns.index("onset")]})


def varied(points: Sequence[Point]) -> list[str]:
    """The columns that set points apart: those before ``onset`` with more than one value."""
    columns = list(points[0])
    before = columns[: columns.index("onset")]
    return [name for name in before if len({str(point[name]) for point in points}) > 1]


def window_of(row: Point) -> tuple[float, float, float]:
    """The onset, the removal and the epochs of a row."""
    return float(row["onset"]), float(row["removal"]), float(row["epochs"])


def window_name(window: tuple[float, float, float], what: str = "deficit") -> str:
    """A window as the title of a panel says it.

    Args:
        window: its onset, its removal and the epochs of the run.
        what: ``deficit``, or ``window`` where something else than a deficit comes and goes.

    Example:
        >>> window_name((0.0, 20.0, 60.0)), window_name((0.0, 0.0, 60.0))
        ('Deficit in epochs 0 to 19', 'No deficit')
    """
    onset, removal, _ = window
    if onset == removal:
        return f"No {what}"
    return f"{what.capitalize()} in epochs {onset:g} to {removal - 1:g}"


def axis_name(setting: str, what: str = "deficit") -> str:
    """What an axis calls ``onset``, ``removal`` or ``length`` of a window, or a varied field.

    Example:
        >>> axis_name("removal"), axis_name("removal", "window"), axis_name("data.init_args.width")
        ('Deficit removed at epoch', 'Window closed at epoch', 'width')
    """
    names = {
        "onset": f"Onset of the {what} (epoch)",
        "removal": "Deficit removed at epoch" if what == "deficit" else "Window closed at epoch",
        "length": f"Length of the {what} (epochs)",
    }
    return names.get(setting, setting.split(".")[-1])
