"""Tables of a study: rows as text in a CSV file, and as a pandas ``DataFrame``."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from critical_periods.core.files import write_text
from critical_periods.plots.labels import settings_of

Rows = Sequence[Mapping[str, Any]]


def write_table(path: Path, rows: Rows) -> None:
    """Writes a CSV file with all columns that occur, in the order in which they do."""
    write_text(path, _csv(rows))


def read_table(file: str | Path | StringIO) -> pd.DataFrame:
    r"""Reads a table that :func:`write_table` wrote.

    A column of numbers has their type, with nan for empty cells. A varied field of 1 and 0.5, or of
    numbers and text, keeps each cell as what it is.

    Example:
        >>> table = read_table(StringIO("depth,share,onset,rsv_mean\n1,1,0,\n2,0.5,0,0.1"))
        >>> [str(kind) for kind in table.dtypes], list(table["share"])
        (['int64', 'object', 'int64', 'float64'], [1, 0.5])
    """
    text = pd.read_csv(file, dtype=str, keep_default_na=False)
    settings = settings_of(text.columns)
    return text.apply(lambda column: _typed(column, column.name in settings))


def as_table(rows: Rows) -> pd.DataFrame:
    """Rows as the table that their file gives."""
    return read_table(StringIO(_csv(rows))) if rows else pd.DataFrame()


def short(number: float) -> float:
    """Six significant digits, which is what tables hold."""
    return float(f"{number:.6g}")


def _csv(rows: Rows) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    # None and a missing cell are empty; nan is written.
    cells = [["" if row.get(name) is None else row[name] for name in columns] for row in rows]
    table = pd.DataFrame(cells, columns=columns, dtype=object)
    return str(table.to_csv(index=False, na_rep="nan", lineterminator="\n"))


def _typed(column: pd.Series, is_setting: bool) -> pd.Series:
    cells = [_cell(text) for text in column]
    kinds = {type(cell) for cell in cells}
    kind: type = object
    if len(kinds) == 1:
        kind = kinds.pop()
    elif not is_setting and kinds <= {int, float, type(None)}:
        kind = float
    return pd.Series(cells, column.index, dtype=object if kind is type(None) else kind)


def _cell(text: str) -> Any:
    """A number where that is written as it would be; ``None`` for an empty cell."""
    for kind in (int, float):
        with suppress(ValueError):
            if str(kind(text)) == text:
                return kind(text)
    return text or None
