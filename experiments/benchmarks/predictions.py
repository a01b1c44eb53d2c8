"""How often `study predict` tells a measure that foretells a loss from two that do not.

Losses of ten seeds at four removals are planted, with the histories of three measures: one that
foretells the loss, one that has nothing to do with it, and one that foretells it in the seeds that
choose alone. A set is right where the first is said to predict and the others are not. Nothing is
trained.

    python experiments/benchmarks/predictions.py [--sets N]

prints the rows of ``experiments/results/predictions.csv``: of how many sets each measure was said
to predict, and how many were right in all three. ``noise`` is the standard deviation of what the
measure has beside the loss, in standard deviations of the loss between seeds.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter

import numpy as np

from critical_periods.studies.prediction import Point, course, foretold

REMOVALS = (5, 10, 15, 20)
MEASURES = ("predicts", "does not", "predicts where chosen")


def planted(number: int, seeds: int, noise: float) -> list[Point]:
    """The points of one set: the loss grows with the removal, and differs between seeds."""
    draw = np.random.default_rng([number, seeds, round(1000 * noise)])
    points = []
    for seed in range(seeds):
        own = draw.standard_normal()
        for removal in REMOVALS:
            loss = removal / 5 + own + 0.5 * draw.standard_normal()
            told, other = loss + noise * draw.standard_normal(), 2 * draw.standard_normal()
            where = told if seed < seeds // 2 else 2 * draw.standard_normal()
            courses = {
                name: course([
                    (epoch, value * (epoch + 1) / removal + 0.1 * draw.standard_normal())
                    for epoch in range(removal)
                ])
                for name, value in zip(MEASURES, (told, other, where), strict=True)
            }  # fmt: skip
            points.append(Point({}, seed, removal, float(loss), courses))
    return points


def said(number: int, seeds: int, noise: float) -> dict[str, bool]:
    """Which measures are said to predict in one set."""
    rows = foretold(planted(number, seeds, noise), MEASURES)
    found = {row["measure"]: bool(row["predicts"]) for row in rows}
    return {name: found.get(name, False) for name in MEASURES}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", type=int, default=200)
    options = parser.parse_args()
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(
        ["seeds", "noise", "sets", *(name.replace(" ", "_") for name in MEASURES), "right"]
    )
    for seeds in (5, 8, 10, 16):
        for noise in (0.5, 1.0):
            found = [said(number, seeds, noise) for number in range(options.sets)]
            counts = Counter(name for one in found for name, is_said in one.items() if is_said)
            right = sum([*one.values()] == [True, False, False] for one in found)
            row = [seeds, noise, options.sets, *(counts[name] for name in MEASURES)]
            table.writerow([*row, f"{right / options.sets:.3f}"])
            sys.stdout.flush()


if __name__ == "__main__":
    main()
