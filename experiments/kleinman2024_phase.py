"""How two paths share a mode after an early or a late deficit: Kleinman et al. 2024, Fig. 1.

A single mode of strength 10, paths of depth 2, 5, 8 and 13. Time is that of steps of 0.001, as in
the authors' runs: 1,000 of them, path 1 frozen in steps 0 to 14 or 100 to 114. One layer of each
path starts near nothing, Gaussian of standard deviation 0.01, the others near 1 (excess = 1).

    python experiments/kleinman2024_phase.py --output runs/kleinman2024_phase
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from critical_periods.linear import Freeze, path_strengths
from critical_periods.plots import save
from critical_periods.plots.style import subplots
from critical_periods.studies.tables import write_table

TARGET, DEPTHS, STARTS = 10.0, (2, 5, 8, 13), 100
STEP, STEPS = 0.001, 1000
WINDOWS = {"Early deficit": (0, 15), "Late deficit": (100, 115)}


def draw(portraits: Mapping[tuple[int, str], NDArray[np.float64]], target: float) -> Figure:
    """Draws how two paths come to share one mode, from many starts: one plane a depth and window.

    Each line is a run from near the origin to the line on which the paths together hold all of
    the mode, K_0 + K_1 = s (dashed); its end is marked.

    Args:
        portraits: by depth and name of the window, the strengths of both paths, [T, 2, starts].
        target: s, the singular value.
    """
    depths, windows = (list(dict.fromkeys(one)) for one in zip(*portraits, strict=True))
    size = (1.9 * len(depths) + 0.4, 2.0 * len(windows) + 0.3)
    figure, axes = subplots(len(windows), len(depths), size, sharex=True, sharey=True)
    for (depth, window), strengths in portraits.items():
        axis = axes[windows.index(window)][depths.index(depth)]
        axis.plot([0, target], [target, 0], color="0.5", linestyle="--", linewidth=1)
        axis.plot([0, target / 2], [0, target / 2], color="0.8", linewidth=0.8, zorder=0)
        axis.plot(strengths[:, 0], strengths[:, 1], color="#0072B2", linewidth=0.5)
        axis.plot(strengths[-1, 0], strengths[-1, 1], ".", color="#D55E00", markersize=3, zorder=3)
        axis.set(xlim=(0, target), ylim=(0, target), aspect="equal")
        axis.spines[["top", "right"]].set_visible(False)
    for axis, depth in zip(axes[0], depths, strict=True):
        axis.set_title(f"D = {depth}", fontsize="medium")
    for axis in axes[-1]:
        axis.set_xlabel("Strength in path 0")
    for row, window in zip(axes, windows, strict=True):
        row[0].set_ylabel(f"{window}\nStrength in path 1")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description="Phase portraits of Kleinman et al. 2024, Fig. 1.")
    parser.add_argument("--output", type=Path, required=True, help="folder of table and figure")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    first = np.random.default_rng(0).normal(0, 0.01, size=(2, STARTS))
    # Dense where the paths are quick.
    times = np.unique(np.concatenate([[0], np.geomspace(1e-4, 1, 200)])) * STEPS * STEP
    portraits, rows = {}, []
    for name, (onset, removal) in WINDOWS.items():
        freeze = Freeze(1, onset * STEP, removal * STEP)
        for depth in DEPTHS:
            paths = path_strengths(times, [TARGET] * STARTS, first, depth, [freeze], excess=1.0)
            portraits[depth, name] = paths
            share = paths[-1, 0] / paths[-1].sum(axis=0)
            rows.append(
                {"depth": depth, "onset": onset, "removal": removal, "starts": STARTS,
                 "path_share": round(share.mean(), 4), "path_share_sd": round(share.std(ddof=1), 4)}
            )  # fmt: skip
            print(f"{name}, D = {depth}: path 0 has {share.mean():.1%} ± {share.std(ddof=1):.1%}")
    write_table(output / "phase.csv", rows)
    save(draw(portraits, TARGET), output / "phase")


if __name__ == "__main__":
    main()
