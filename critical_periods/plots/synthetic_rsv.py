"""Synthetic relative source variance: measured histograms over the distribution in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from critical_periods.metrics.functional.rsv_summary import polarization, rsv_histogram
from critical_periods.plots.style import COLOURS, subplots


def plot_synthetic_rsv(
    measured: Sequence[tuple[str, Tensor, Callable[[np.ndarray], np.ndarray]]],
) -> Figure:
    """Draws histograms of 40 bins of RSVs in a row, each with the closed form's distribution.

    Source: Kleinman, Achille & Soatto (CVPR 2023), Fig. 3.

    Args:
        measured: of each representation its name, the RSVs of its units, and the distribution
            function of RSV that the closed form has for it, such as
            :func:`critical_periods.linear.rsv_cdf`.
    """
    figure, axes = subplots(1, len(measured), (2.7 * len(measured), 3))
    for axis, (name, rsv, cdf) in zip(axes[0], measured, strict=True):
        counts, edges = rsv_histogram(rsv)
        expected = np.diff(cdf(edges.numpy()))
        axis.stairs(
            100 * counts.numpy() / int(counts.sum()), edges.numpy(), fill=True, color=COLOURS[5],
            label="measured",
        )  # fmt: skip
        axis.stairs(
            100 * expected, edges.numpy(), baseline=None, color=COLOURS[6], label="closed form"
        )
        share = f"{100 * float(polarization(rsv)):.0f} % polarised"
        axis.set_title(f"{name}\n{share}", fontsize="medium")
        axis.set_xlim(-1, 1)
        axis.set_xlabel("RSV")
    axes[0][0].set_ylabel("Units (%)")
    axes[0][0].legend(frameon=False, fontsize="small", loc="upper right")
    return figure
