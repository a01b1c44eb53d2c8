"""Where harm begins: the boundary that an adaptive study has found."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from critical_periods.core.errors import UserError
from critical_periods.plots.labels import label_of
from critical_periods.plots.style import COLOURS, axis_name, subplots, window_word

_TWO_SIDED = 1.96
_MEASURED = ("loss", "loss_sd", "impaired", "threshold")


def plot_boundary(boundary: pd.DataFrame, adaptive: pd.DataFrame | None = None) -> Figure:
    """Draws the loss over the plane of two axes as the finished runs have it, and the boundary.

    Colours are the expected loss, the line is where it passes the threshold, dashed lines are where
    it would with 1.96 standard deviations more or less. Runs are numbered in the order in which
    they were chosen, filled where they were impaired; of a third axis the ends and the middle are
    panels, and a run stands in the nearest. Where one axis alone varies, the loss is a line with
    its band.

    The tables are those of a study, ``load_study(folder).boundary`` and ``.adaptive``.

    Raises:
        UserError: the table has no two axes, or one, that could be drawn.

    Example:
        >>> onset, length = (part.ravel() for part in np.mgrid[0:3, 1:4])
        >>> boundary = pd.DataFrame({
        ...     "onset": onset, "length": length, "loss": 0.02 * length - 0.01 * onset,
        ...     "loss_sd": 0.01, "threshold": 0.03,
        ... })
        >>> plot_boundary(boundary).axes[0].get_ylabel()
        'Length of the deficit (epochs)'
    """
    what = window_word(boundary)
    axes = [name for name in boundary if name not in _MEASURED and boundary[name].nunique() > 1]
    runs = pd.DataFrame() if adaptive is None else adaptive
    if not axes:
        raise UserError("the boundary has no axis that varies.")
    if len(axes) == 1:
        figure, ((axis,),) = subplots(1, 1, (5.6, 3.8))
        _line(axis, boundary, axes[0], runs)
        axis.set(xlabel=axis_name(axes[0], what), ylabel="Loss")
        return figure
    across, up, *further = axes
    panels = sorted(boundary[further[0]].unique()) if further else [None]
    figure, ((*drawn,),) = subplots(1, len(panels), (1.4 + 4.2 * len(panels), 3.9), sharey=True)
    scale = {"vmin": float(boundary["loss"].min()), "vmax": float(boundary["loss"].max())}
    for place, (axis, value) in enumerate(zip(drawn, panels, strict=True)):
        plane, here = boundary, runs
        if further:
            plane = boundary[boundary[further[0]] == value]
            axis.set_title(label_of({further[0]: value}), fontsize="medium")
            if len(runs):
                gaps = [(runs[further[0]].astype(float) - one).abs() for one in panels]
                here = runs[np.argmin(gaps, axis=0) == place]
        picture = _plane(axis, plane, across, up, here, scale)
        axis.set_xlabel(axis_name(across, what))
    drawn[0].set_ylabel(axis_name(up, what))
    figure.colorbar(picture, ax=drawn, label="Loss (mean over seeds, as expected)")
    return figure


def _plane(
    axis: Axes, plane: pd.DataFrame, across: str, up: str, runs: pd.DataFrame, scale: dict[str, Any]
) -> Any:
    found = {
        name: plane.pivot(index=up, columns=across, values=name).astype(float)
        for name in ("loss", "loss_sd")
    }
    loss, sd = found["loss"], found["loss_sd"]
    x, y = (part.to_numpy(dtype=float) for part in (loss.columns, loss.index))
    picture = axis.pcolormesh(x, y, loss, cmap="cividis", shading="nearest", **scale)
    threshold = float(plane["threshold"].iloc[0])
    for sign, style in ((0, "solid"), (-1, "dashed"), (1, "dashed")):
        values = (loss + sign * _TWO_SIDED * sd).to_numpy()
        # A level that is nowhere makes matplotlib warn.
        if values.min() < threshold < values.max():
            axis.contour(x, y, values, [threshold], colors="white", linestyles=style)
    for _, run in runs.iterrows():
        is_impaired = run["impaired"] == 1
        axis.plot(
            run[across], run[up], "o", markersize=9, markeredgecolor="white",
            color=COLOURS[1] if is_impaired else "black", alpha=0.8,
        )  # fmt: skip
        axis.annotate(
            f"{run['run']:.0f}", (run[across], run[up]), color="white", fontsize=5,
            ha="center", va="center",
        )  # fmt: skip
    return picture


def _line(axis: Axes, boundary: pd.DataFrame, across: str, runs: pd.DataFrame) -> None:
    x, mean, half = boundary[across], boundary["loss"], _TWO_SIDED * boundary["loss_sd"]
    axis.fill_between(x, mean - half, mean + half, color=COLOURS[0], alpha=0.2, linewidth=0)
    axis.plot(x, mean, color=COLOURS[0])
    axis.axhline(float(boundary["threshold"].iloc[0]), color="0.4", linestyle="--", linewidth=0.8)
    if len(runs):
        axis.plot(runs[across], runs["loss"], "o", color=COLOURS[1], markersize=5)
