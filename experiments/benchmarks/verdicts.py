"""How often verdicts on ladders are right: lags and scars that were planted, noise as measured.

The gaps of 8 seeds at five rungs are made of a power law (size 25 points at the first rung, speeds
0.3, 0.6, 1 and 1.5 in turn) with or without a scar, and of Gaussian noise. Its standard deviation
is that of the gaps between the seeds of a committed study, pooled over its windows; the noise of a
seed is another at each rung, or half of its variance is shared by all, as its rungs share their
trunk. Nothing is trained.

    python experiments/benchmarks/verdicts.py [--sets N] [--draw D ...] [--margin M] [--scar S]

prints the rows of ``experiments/results/verdicts.csv``. The rule was tightened by the sets of draws
0 and 1, and is checked by those of draw 2. ``right`` is the share of the verdicts given that are
right, of lags and scars of the same noise together. ``verdicts_before.csv`` holds draws 0 and 1 as
they were called before the last time.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from critical_periods.studies.healing import healing

RESULTS = Path(__file__).parents[1] / "results"
STUDIES = ("deficits_mini", "deficits_cifar10_mini", "recovery_digits")
RUNGS = (5, 10, 20, 40, 80)
SEEDS, SIZE, SPEEDS = 8, 0.25, (0.3, 0.6, 1.0, 1.5)


def noise_of(study: str) -> float:
    """The standard deviation between the seeds of a gap, pooled over the windows of a study."""
    curve = pd.read_csv(RESULTS / study / "curve.csv").query("onset < removal")
    return float(np.sqrt((curve["final_accuracy_difference_sd"] ** 2).mean()))


def planted(number: int, scar: float, sd: float, shared: float, of_draw: int = 0) -> np.ndarray:
    """The gaps of one set of curves, [seeds, rungs]."""
    key = [number, round(1e6 * scar), round(1e6 * sd), round(100 * shared)]
    draw = np.random.default_rng([*key, of_draw] if of_draw else key)
    law = scar + SIZE * (np.array(RUNGS) / RUNGS[0]) ** -SPEEDS[number % len(SPEEDS)]
    own, common = draw.standard_normal((SEEDS, len(RUNGS))), draw.standard_normal((SEEDS, 1))
    return np.asarray(law + sd * (np.sqrt(1 - shared) * own + np.sqrt(shared) * common))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", type=int, default=200, help="of curves, lags and scars each")
    parser.add_argument("--draw", type=int, nargs="+", default=[0, 2], help="of the sets")
    parser.add_argument("--margin", type=float, default=0.005)
    parser.add_argument("--scar", type=float, default=0.05)
    options = parser.parse_args()
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(
        ["noise_of", "sd", "shared", "draw", "planted", "margin", "sets", "scar", "lag",
         "undecided", "right"]
    )  # fmt: skip
    for study, shared, draw in product(STUDIES, (0.0, 0.5), options.draw):
        sd = noise_of(study)
        said = {
            name: Counter(
                healing(RUNGS, planted(n, scar, sd, shared, draw), options.margin).verdict
                for n in range(options.sets)
            )
            for name, scar in (("lag", 0.0), ("scar", options.scar))
        }
        given = sum(of["scar"] + of["lag"] for of in said.values())
        right = (said["lag"]["lag"] + said["scar"]["scar"]) / given if given else 1.0
        for name, of in said.items():
            counts = [of[verdict] for verdict in ("scar", "lag", "undecided")]
            row = [study, f"{sd:.4f}", shared, draw, name, options.margin, options.sets, *counts]
            table.writerow([*row, f"{right:.3f}"])
            sys.stdout.flush()


if __name__ == "__main__":
    main()
