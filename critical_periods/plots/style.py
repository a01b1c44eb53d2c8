"""What all figures share: colours, panels, legends, files, and groups of a table's rows."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import Container
from matplotlib.figure import Figure
from numpy.typing import NDArray

from critical_periods.core.errors import UserError
from critical_periods.core.files import replacing
from critical_periods.plots.labels import label_of, settings_of

# Okabe & Ito 2008: told apart by colour-blind readers and in grey print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<P"

Window = tuple[int, int, int]
"""Onset, removal and epochs of a run; onset = removal: no deficit."""


def look_of(place: int) -> tuple[str, str]:
    """Colour and marker of a line; both repeat only after 49 lines.

    Example:
        >>> [look_of(place) for place in (0, 1, 7)]
        [('#0072B2', 'o'), ('#D55E00', 's'), ('#0072B2', 's')]
    """
    rounds, colour = divmod(place, len(COLOURS))
    return COLOURS[colour], MARKERS[(place + rounds) % len(MARKERS)]


class _Figure(Figure):
    """A figure that a notebook shows even where pyplot, which makes it do so, is not imported."""

    def _repr_png_(self) -> bytes:
        with BytesIO() as file:
            self.savefig(file, format="png")
            return file.getvalue()


def subplots(
    rows: int, columns: int, size: tuple[float, float], **shared: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure of a size in inches, made without pyplot, and its axes, [rows, columns].

    pyplot keeps every figure until it is closed and has one backend for the whole process: a figure
    of ours must not change what a notebook shows of its own. ``shared``: ``sharex``, ``sharey``.

    Example:
        >>> figure, ((left, right),) = subplots(1, 2, (6, 3), sharey=True)
        >>> len(figure.axes)
        2
    """
    figure = _Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def one_panel(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """The axes that are given and their figure, or those of a new figure."""
    if ax is None:
        figure, ((ax,),) = subplots(1, 1, size)
        return figure, ax
    return ax.figure.figure, ax


def save(figure: Figure, path: Path) -> None:
    """Writes a figure to ``<path>.png`` and ``<path>.pdf``, each whole or not at all."""
    # A date inside would make the same figure another file each time.
    for kind, metadata in (("png", {}), ("pdf", {"CreationDate": None})):
        with replacing(path.with_name(f"{path.name}.{kind}")) as part:
            figure.savefig(part, format=kind, dpi=150, metadata=metadata)


def legend_below(figure: Figure, handles: Sequence[Artist | Container]) -> None:
    """Puts a legend under the panels, in as many columns as fit, and makes the figure higher."""
    for columns in range(len(handles), 0, -1):
        look: dict[str, Any] = {"ncols": columns, "frameon": False, "fontsize": "small"}
        legend = figure.legend(handles=handles, loc="outside lower center", **look)
        size = legend.get_window_extent()
        if size.width <= figure.bbox.width or columns == 1:
            break
        legend.remove()
    figure.set_figheight(figure.get_figheight() + size.height / figure.dpi)


def numbers(table: pd.DataFrame, column: str) -> pd.Series:
    """A column of numbers, nan where none is that could be drawn, or no such column."""
    found = table.reindex(columns=[column])[column].astype(float)
    return found.where(found.abs() < float("inf"))


def spread(table: pd.DataFrame, column: str) -> pd.Series:
    """The standard deviations of a column, 0 where there is none."""
    return numbers(table, f"{column}_sd").fillna(0)


def varied(table: pd.DataFrame) -> list[str]:
    """The columns before ``onset`` that have more than one value."""
    return [name for name in settings_of(table.columns) if len(set(map(str, table[name]))) > 1]


def lines(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each variation, by what a legend calls it; one without a name if there is one.

    Example:
        >>> table = pd.DataFrame({"variant": ["blur", "flip", "blur"], "onset": [0, 0, 5]})
        >>> {name: len(rows) for name, rows in lines(table).items()}
        {'blur': 2, 'flip': 1}
    """
    names = settings_of(table.columns)
    rows = table[names].itertuples(name=None)
    labels = [label_of(dict(zip(names, row[1:], strict=True))) for row in rows]
    return dict(iter(table.groupby(pd.Series(labels, table.index), sort=False)))


def by_length(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows with a deficit of each variation and length of its window, by their names."""
    found = {}
    for name, line in lines(table).items():
        lengths = line["removal"] - line["onset"]
        for length, rows in line[lengths > 0].groupby(lengths, sort=False):
            text = f"{length} epoch{'s' * (length > 1)}"
            found[f"{name}, {text}" if name else text] = rows
    return found


def by_rung(groups: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The lines of a ladder's curve, one for each rung; those of any other study as they are."""
    found = {}
    for name, line in groups.items():
        rungs = line["epochs"] - line["removal"]
        windows = line[line["onset"] < line["removal"]]
        if not windows.duplicated(["onset", "removal"]).any():
            found[name] = line
            continue
        for rung in sorted(rungs[windows.index].unique()):
            text = f"{rung} epochs after"
            # A deficit of no epochs is a point of all.
            rows = line[(rungs == rung) | (line["removal"] == 0)]
            found[f"{name}, {text}" if name else text] = rows
    return found


def by_window(table: pd.DataFrame) -> dict[Window, pd.DataFrame]:
    """The rows of each window: the longest run without one, then the others by onset, removal.

    The rungs of a ladder share their past; of these it is the longest one.
    """
    groups = dict(iter(table.groupby(["onset", "removal", "epochs"])))
    longest = {window[:2]: window for window in groups}
    groups = {key: rows for key, rows in groups.items() if key in longest.values()}
    clean = [window for window in groups if window[0] == window[1]][-1:]
    return {key: groups[key] for key in (*clean, *(key for key in groups if key[0] < key[1]))}


def window_word(table: pd.DataFrame) -> str:
    """What comes and goes in a study, by the ``attrs`` of its tables: ``deficit`` or ``window``.

    Raises:
        UserError: the table is empty, so there is nothing to draw.
    """
    if table.empty:
        raise UserError("the table has no rows, so there is nothing to draw: it was not measured.")
    return str(table.attrs.get("window", "deficit"))


def window_name(window: Window, what: str = "deficit") -> str:
    """A window as the title of a panel says it.

    Example:
        >>> window_name((0, 20, 60)), window_name((0, 0, 60))
        ('Deficit in epochs 0 to 19', 'No deficit')
    """
    onset, removal, _ = window
    if onset == removal:
        return f"No {what}"
    return f"{what.capitalize()} in epochs {onset} to {removal - 1}"


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
