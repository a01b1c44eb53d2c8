"""Accuracies of networks trained on one data set and tested on another."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from critical_periods.plots.style import lines, one_panel


def plot_cross(table: pd.DataFrame, ax: Axes | None = None) -> Figure:
    """Draws the matrix: rows are trained on, columns tested on; means with 95 % intervals in %.

    The table is that of a study, ``load_study(folder).cross``.

    Example:
        >>> table = pd.DataFrame({
        ...     "variant": ["a", "a", "b", "b"], "onset": [0] * 4, "tested": ["a", "b"] * 2,
        ...     "accuracy": [0.9, 0.4, 0.7, 0.6],
        ... })
        >>> [text.get_text() for text in plot_cross(table).axes[0].texts]
        ['90.0', '40.0', '70.0', '60.0']
    """
    rows, columns = lines(table), list(dict.fromkeys(table["tested"]))
    figure, axis = one_panel(ax, (2.2 + 1.3 * len(columns), 1.6 + 0.9 * len(rows)))
    cells = [of.drop_duplicates("tested").set_index("tested") for of in rows.values()]
    means = [
        [100 * float(of["accuracy"].get(one, float("nan"))) for one in columns] for of in cells
    ]
    axis.imshow(means, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, of in enumerate(cells):
        for column, one in enumerate(columns):
            text = f"{means[row][column]:.1f}"
            if "accuracy_low" in of and of["accuracy_low"].notna().get(one, False):
                ends = (100 * of[f"accuracy_{end}"][one] for end in ("low", "high"))
                text += "\n[{:.1f}, {:.1f}]".format(*ends)
            colour = "white" if means[row][column] > 60 else "black"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set(xlabel="tested on", ylabel="trained on")
    return figure
