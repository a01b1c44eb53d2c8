"""What remedies regain after a deficit, and what they cost without one."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from critical_periods.plots.labels import label_of, settings_of
from critical_periods.plots.style import COLOURS, legend_below, numbers, subplots, window_word


def plot_remedies(remedies: pd.DataFrame) -> Figure:
    """Draws points of accuracy by remedy, a panel for each variation and removal.

    Filled: regained, beside the run with the deficit and no remedy; hollow: gained by a network
    that had no deficit, which lies left of 0 where the remedy costs it. Bars are intervals over
    seeds, and the dotted line is all that was lost. The table is ``load_study(folder).remedies``.

    Example:
        >>> table = pd.DataFrame({
        ...     "remedy": ["none", "rest"], "onset": 0, "removal": 20, "epochs": 40,
        ...     "lost": [0.1, 0.05], "regained": [float("nan"), 0.05], "clean_cost": [None, 0.01],
        ... })
        >>> plot_remedies(table).axes[0].get_xlabel()
        'Points of final accuracy'
    """
    what = window_word(remedies)
    names = [name for name in settings_of(remedies.columns) if name != "remedy"]
    panels = list(remedies.groupby([*names, "removal"], sort=False, dropna=False))
    most = max(rows["remedy"].nunique() for _, rows in panels)
    figure, (axes,) = subplots(
        1, len(panels), (1 + 3.4 * len(panels), 1.4 + 0.35 * most), sharey=True
    )
    for axis, (key, rows) in zip(axes, panels, strict=True):
        *values, removal = key
        treated = rows[rows["remedy"] != "none"]
        places = np.arange(len(treated))[::-1]
        for sign, column, shift, face, text in (
            (1, "regained", 0.12, None, f"regained after the {what}"),
            (-1, "clean_cost", -0.12, "white", f"gained without a {what}"),
        ):
            middle = 100 * sign * numbers(treated, column)
            ends = [100 * sign * numbers(treated, f"{column}{end}") for end in ("_low", "_high")]
            bars = [abs(one.fillna(middle) - middle) for one in ends[::sign]]
            axis.errorbar(
                middle, places + shift, xerr=bars, linestyle="none", marker="o", capsize=3,
                color=COLOURS[0 if sign > 0 else 1], markerfacecolor=face, label=text,
            )  # fmt: skip
        lost = 100 * numbers(rows[rows["remedy"] == "none"], "lost").dropna()
        if len(lost):
            axis.axvline(lost.iloc[0], color="0.5", linestyle=":", label="all that was lost")
        axis.axvline(0, color="0.8", linewidth=1, zorder=0)
        axis.set_yticks(places, treated["remedy"])
        label = label_of(dict(zip(names, values, strict=True)))
        axis.set_title(", ".join(filter(None, [label, f"removed at {removal}"])), fontsize="small")
        axis.set(xlabel="Points of final accuracy")
        axis.spines[["top", "right"]].set_visible(False)
    legend_below(figure, axes[0].get_legend_handles_labels()[0])
    return figure
