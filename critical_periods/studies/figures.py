"""The figures of a study: what its tables give, drawn when they are asked for."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import chain, count

import pandas as pd
from matplotlib.figure import Figure

from critical_periods.plots import curve as curves
from critical_periods.plots import through_epochs
from critical_periods.plots.boundary import plot_boundary
from critical_periods.plots.cross import plot_cross
from critical_periods.plots.recovery import plot_recovery
from critical_periods.plots.remedies import plot_remedies
from critical_periods.plots.rsv import plot_rsv
from critical_periods.plots.style import lines, numbers

ADAPTIVE = ("adaptive", "boundary")
"""The tables of an adaptive study, which its only figure is drawn from."""
_PLOTS: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "agent": through_epochs.plot_success,
    "fisher": through_epochs.plot_fisher,
    "layers": through_epochs.plot_layers,
    "information": through_epochs.plot_information,
    "reconstruction": through_epochs.plot_reconstruction,
    "rsv": plot_rsv,
    "modes": through_epochs.plot_modes,
}


def figures(tables: Mapping[str, pd.DataFrame], title: str) -> dict[str, Callable[[], Figure]]:
    """What can be drawn: names of files without their endings, and what draws them."""
    curve = tables.get("curve", pd.DataFrame())
    titled = partial(partial, _titled, title)
    found: dict[str, Callable[[], Figure]] = {}
    if "adaptive" in tables:
        # Its runs lie on no curve.
        both = [tables[name] for name in ADAPTIVE[::-1] if name in tables]
        return {"boundary": titled(plot_boundary, *both)} if len(both) == 2 else {}
    if curves.curve_panels(curve):
        found["curve"] = titled(curves.plot_curve, curve)
    if "recovery" in tables and numbers(tables["recovery"], "gap").notna().any():
        found["recovery"] = titled(plot_recovery, tables["recovery"])
    if "cross" in tables:
        found["cross"] = titled(plot_cross, tables["cross"])
    if "remedies" in tables and numbers(tables["remedies"], "regained").notna().any():
        found["remedies"] = titled(plot_remedies, tables["remedies"])
    # These two draw losses of accuracy, which not every task has.
    if numbers(curve, "final_accuracy_difference").notna().any():
        if curves.has_sensitivity(curve):
            found["sensitivity"] = titled(curves.plot_sensitivity, curve, tables.get("fisher"))
        if curves.surface_axes(curve) is not None:
            found["surface"] = titled(curves.plot_surface, curve)
    for kind in (name for name in _PLOTS if name in tables):
        for name, rows in lines(tables[kind]).items():
            if "epoch" not in rows or rows["epoch"].nunique() > 1:
                stem = re.sub(r"\W+", "_", f"{kind}_{name}").strip("_")
                # Of x = 1 and x = -1, say, whose files would have one name.
                files = chain([stem], (f"{stem}_{number}" for number in count(2)))
                file = next(one for one in files if one not in found)
                text = f"{title}: {name}" if name else title
                found[file] = partial(_titled, text, _PLOTS[kind], rows)
    return found


def _titled(title: str, draw: Callable[..., Figure], *tables: pd.DataFrame | None) -> Figure:
    figure = draw(*tables)
    figure.suptitle(title)
    return figure
