"""The extent of the impairment as a surface: two settings against each other."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from critical_periods.core.errors import UserError
from critical_periods.plots.style import axis_name, numbers, one_panel, varied, window_word


def surface_axes(curve: pd.DataFrame) -> tuple[str, str] | None:
    """The two settings that span a surface, or ``None`` where the points span none.

    These are the onset and the ``length`` of the window, or, where one numeric field is varied,
    the removal (or onset) and that field.

    Args:
        curve: the table of that name.
    """
    deficits = _deficits(curve)
    if deficits.empty:
        return None
    # Windows on a line in that plane, as those from each onset to the end, do not span it.
    windows = deficits[["onset", "length"]].drop_duplicates()
    is_plane = len(windows) > max(windows.nunique())
    names = varied(deficits)
    if not names and is_plane:
        return "onset", "length"
    if len(names) == 1 and not is_plane:
        is_numeric = pd.to_numeric(deficits[names[0]], errors="coerce").notna().all()
        if is_numeric:
            return ("onset" if windows["onset"].nunique() > 1 else "removal"), names[0]
    return None


def plot_surface(curve: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draws the loss of final accuracy as a heat map over two settings, with its numbers.

    Cells are means over seeds of the paired differences to the runs without a deficit; settings
    that were not run stay white.

    Args:
        curve: the table of that name.
        ax: drawn into instead of a figure of its own.

    Raises:
        UserError: no two settings vary (:func:`surface_axes`).
    """
    what, axes = window_word(curve), surface_axes(curve)
    if axes is None:
        raise UserError("the curve has no two settings that span a surface.")
    across, up = axes
    cells = _deficits(curve).assign(loss=-100 * numbers(curve, "final_accuracy_difference"))
    cells = cells.dropna(subset="loss").drop_duplicates([across, up], keep="last")
    losses = cells.astype({across: float, up: float}).pivot(index=up, columns=across, values="loss")
    table = losses.to_numpy()
    # However few the columns, the title needs its width.
    size = (max(1.8 + 0.8 * table.shape[1], 5.0), 1.6 + 0.5 * table.shape[0])
    figure, axis = one_panel(ax, size)
    # Cells say tenths of a point: a finer scale would only be read with powers of ten beside it.
    largest = max(float(np.nanmax(np.abs(table))), 0.1)
    lowest = min(0.0, float(np.nanmin(table)))
    picture = axis.imshow(
        table, origin="lower", aspect="auto", cmap="cividis", vmin=lowest, vmax=largest
    )
    for (row, column), value in np.ndenumerate(table):
        if not np.isnan(value):
            shade = "black" if value > 0.6 * largest else "white"
            axis.text(column, row, f"{value:z.1f}", ha="center", va="center", color=shade)
    axis.set_xticks(range(table.shape[1]), [f"{value:g}" for value in losses.columns])
    axis.set_yticks(range(table.shape[0]), [f"{value:g}" for value in losses.index])
    axis.set_xlabel(axis_name(across, what))
    axis.set_ylabel(axis_name(up, what))
    figure.colorbar(picture, ax=axis, label="Loss of final accuracy (points)")
    return figure


def _deficits(curve: pd.DataFrame) -> pd.DataFrame:
    """The windows that are not empty, with their ``length``."""
    return curve.assign(length=curve["removal"] - curve["onset"]).query("length > 0")
