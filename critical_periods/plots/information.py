"""What the eyes tell, together and alone, through training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from critical_periods.plots.histories import plot_histories
from critical_periods.plots.style import Point

# In bits.
_LOWEST = -0.5
_NAMES = {
    "information_both": "both views",
    "information_view_0": "view 0 (left) alone",
    "information_view_1": "view 1 (right) alone",
}


def plot_information(
    rows: Sequence[Point], path: Path, title: str = "", what: str = "deficit"
) -> None:
    """Draws usable information of both views and of each alone against the epoch.

    What lies below -0.5 bits is not shown: inside the window networks are confidently wrong about
    good sight, which they have never met. Kleinman et al. 2023, Fig. 4 and 9.

    Args:
        rows: of ``information.csv``, of one variation.
        path: of the picture; its ending says which kind.
        title: above the panels.
        what: comes and goes: ``deficit``, or ``window`` for anything else.
    """
    measures = [name for name in rows[0] if name.startswith("information_")]
    names = {name: _NAMES.get(name, name) for name in measures if not name.endswith("_sd")}
    plot_histories(rows, path, title, names, "Usable information (bits)", 0.0, _LOWEST, what)
