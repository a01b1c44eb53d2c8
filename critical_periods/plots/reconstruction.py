"""How well hidden patches are predicted, from their own view and from another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from critical_periods.plots.histories import plot_histories
from critical_periods.plots.style import Point

_NAMES = {
    "reconstruction_own_view": "from their own view",
    "reconstruction_other_view": "from another view",
    "reconstruction_both_views": "from both, half of each",
}


def plot_reconstruction(
    rows: Sequence[Point], path: Path, title: str = "", what: str = "deficit"
) -> None:
    """Draws the error on hidden patches against the epoch.

    The line at 1 is what the patches' mean, said everywhere, would give. Kleinman et al. 2023,
    Fig. 7.

    Args:
        rows: of ``reconstruction.csv``, of one variation.
        path: of the picture; its ending says which kind.
        title: above the panels.
        what: comes and goes: ``deficit``, or ``window`` for anything else.
    """
    label = "Error on hidden patches\n(share of their variance)"
    plot_histories(rows, path, title, _NAMES, label, 1.0, what=what)
