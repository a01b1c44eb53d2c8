"""Linear learning: the weight of each sensor for one task through training, shallow and deep."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from critical_periods.plots.style import COLOURS, MARKERS, subplots

# As in the paper, the sensor that is dropped is green and the one that waits for it is dark.
_COLOURS = tuple(COLOURS[place] for place in (0, 2, 1, 3, 6, 4, 5))
_DRAWN = 0.02  # weights that stay below are left out
_METHODS = (
    Line2D([], [], color="0.5", linewidth=2.5, alpha=0.6, label="closed form"),
    Line2D([], [], color="0.2", linewidth=1, linestyle="--", label="ODE"),
    Line2D([], [], color="0.2", linestyle="", marker="o", markerfacecolor="white", markersize=4,
           label="gradient descent"),
)  # fmt: skip


Courses = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Times [T], and weights [T, outputs, inputs] by the closed form, the ODE and gradient descent.

Such as a :class:`critical_periods.linear.Comparison`. The closed form is nan where it does not
hold.
"""


def plot_linear_dynamics(
    cases: Mapping[str, tuple[Courses, Courses]],
    scattered: tuple[str, Courses],
    gaps: Mapping[int, Sequence[float]],
    task: int = 4,
) -> Figure:
    """Draws the weights of one task against time: Fig. 2 of Kleinman et al. (CVPR 2023), and more.

    One row a case, a shallow network on the left and a deep one on the right: broad lines are the
    closed form, as far as it holds, dashes the ODE, marks gradient descent; a dotted line is where
    a sensor comes or goes. The last row has a deep network that starts from small random
    weights, with the closed form of an aligned start for comparison, and the largest difference of
    the two against the width of the hidden layer.

    Args:
        cases: by their name, in a shallow and in a deep network.
        scattered: its name; and ODE and simulation from random weights beside the closed form.
        gaps: by width, the largest |ODE − closed form| over all entries and times, one a seed.
        task: which row of W, from 0.
    """
    sensors = _moving([one for pair in cases.values() for one in pair], task)
    figure, axes = subplots(len(cases) + 1, 2, (7.4, 2.15 * len(cases) + 3.2))
    for row, (name, pair) in zip(axes, cases.items(), strict=False):
        for axis, case, network in zip(row, pair, ("Shallow", "Deep"), strict=True):
            _courses(axis, case, sensors, task, f"{network}: {name}")
        row[1].sharey(row[0])
        row[0].set_ylabel(f"Weight for task {task + 1}")

    _courses(axes[-1][0], scattered[1], sensors, task, f"Deep: {scattered[0]}")
    axes[-1][0].set_ylabel(f"Weight for task {task + 1}")
    _gaps(axes[-1][1], gaps)
    for axis in [*axes[-2], axes[-1][0]]:
        axis.set_xlabel("Time (τ)")
    handles = [
        Line2D([], [], color=colour, marker=marker, label=f"sensor {sensor + 1}")
        for sensor, colour, marker in zip(sensors, _COLOURS, MARKERS, strict=False)
    ]
    figure.legend(
        handles=[*handles, *_METHODS], loc="outside lower center", ncols=4, frameon=False,
        fontsize="small",
    )  # fmt: skip
    return figure


def _moving(cases: Sequence[Courses], task: int) -> list[int]:
    """The sensors that this task ever listens to, at most as many as there are colours."""
    largest = np.max([abs(flow[:, task]).max(0) for _, _, flow, _ in cases], axis=0)
    first = np.argsort(-largest)[: len(_COLOURS)]
    return sorted(int(sensor) for sensor in first if largest[sensor] > _DRAWN)


def _courses(axis: Axes, case: Courses, sensors: Sequence[int], task: int, title: str) -> None:
    axis.set_title(title, fontsize="medium")
    times, closed, flow, simulation = case
    few = slice(None, None, max(1, len(times) // 20))
    axis.axhline(0, color="0.85", linewidth=0.8, zorder=0)
    for sensor, colour, marker in zip(sensors, _COLOURS, MARKERS, strict=False):
        axis.plot(times, closed[:, task, sensor], color=colour, linewidth=2.5, alpha=0.6)
        axis.plot(times, flow[:, task, sensor], color=colour, linewidth=1, linestyle="--")
        axis.plot(
            times[few], simulation[few, task, sensor], color=colour, linestyle="",
            marker=marker, markersize=4, markerfacecolor="white",
        )  # fmt: skip
    holds = ~np.isnan(closed[:, 0, 0])
    if not holds.all():
        axis.axvline(float(times[holds][-1]), color="0.4", linestyle=":", linewidth=1)


def _gaps(axis: Axes, gaps: Mapping[int, Sequence[float]]) -> None:
    for width, found in gaps.items():
        axis.plot([width] * len(found), found, "o", color="0.6", markersize=3)
    axis.plot(list(gaps), [np.median(found) for found in gaps.values()], color=COLOURS[0],
              marker="s", label="median")  # fmt: skip
    axis.plot([], [], "o", color="0.6", markersize=3, label="each seed")
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    axis.set_ylim(bottom=0)
    axis.set(xlabel="Hidden units", ylabel="Largest |ODE − closed form|")
    axis.set_title("The gap that random weights leave", fontsize="medium")
    axis.legend(frameon=False, fontsize="small")
