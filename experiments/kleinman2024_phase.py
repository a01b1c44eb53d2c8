"""How two paths share a mode after an early or a late deficit: Kleinman et al. 2024, Fig. 1.

A single mode of strength 10, paths of depth 2, 5, 8 and 13. Time is that of steps of 0.001, as in
the authors' runs: 1,000 of them, path 1 frozen in steps 0 to 14 or 100 to 114. One layer of each
path starts near nothing, Gaussian of standard deviation 0.01, the others near 1 (excess = 1).

    python experiments/kleinman2024_phase.py --output runs/kleinman2024_phase
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from critical_periods.linear import Freeze, path_strengths
from critical_periods.plots import plot_portraits, save
from critical_periods.studies.tables import write_table

TARGET, DEPTHS, STARTS = 10.0, (2, 5, 8, 13), 100
STEP, STEPS = 0.001, 1000
WINDOWS = {"Early deficit": (0, 15), "Late deficit": (100, 115)}


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
    save(plot_portraits(portraits, TARGET), output / "phase")


if __name__ == "__main__":
    main()
