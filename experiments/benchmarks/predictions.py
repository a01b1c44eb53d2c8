"""How often `study predict` tells a measure that foretells a loss from two that do not.

Losses of some seeds at four removals are planted, with the histories of three measures: one that
foretells the loss, one that has nothing to do with it, and one that foretells it in the seeds that
choose alone. A set is right where the first is said to predict and the others are not. Of the
verdicts, which may be undecided, one a measure and set, it counts how many are given, and right.
Nothing is trained, and the sets are others than those that the rule was chosen by.

    python experiments/benchmarks/predictions.py [--sets N]

prints the rows of ``experiments/results/predictions.csv``: of how many sets each measure was said
to predict, how many were right in all three, and the verdicts. ``noise`` is the standard deviation
of what the measure has beside the loss, in standard deviations of the loss between seeds.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter

import numpy as np

from critical_periods.studies.prediction import Point, course, divided, foretold

REMOVALS = (5, 10, 15, 20)
MEASURES = ("predicts", "does not", "predicts where chosen")
TRUTH = ("predicts", "does not", "does not")
_DRAW = 3


def planted(number: int, seeds: int, noise: float) -> list[Point]:
    """The points of one set: the loss grows with the removal, and differs between seeds."""
    draw = np.random.default_rng([_DRAW, number, seeds, round(1000 * noise)])
    choosing, _ = divided(range(seeds))
    points = []
    for seed in range(seeds):
        own = draw.standard_normal()
        for removal in REMOVALS:
            loss = removal / 5 + own + 0.5 * draw.standard_normal()
            told, other = loss + noise * draw.standard_normal(), 2 * draw.standard_normal()
            where = told if seed in choosing else 2 * draw.standard_normal()
            courses = {
                name: course([
                    (epoch, value * (epoch + 1) / removal + 0.1 * draw.standard_normal())
                    for epoch in range(removal)
                ])
                for name, value in zip(MEASURES, (told, other, where), strict=True)
            }  # fmt: skip
            points.append(Point({}, seed, removal, float(loss), courses))
    return points


def said(number: int, seeds: int, noise: float) -> tuple[str, ...]:
    """The verdict of each measure in one set."""
    rows = foretold(planted(number, seeds, noise), MEASURES)
    found = {row["measure"]: row["verdict"] for row in rows}
    return tuple(found[name] for name in MEASURES)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", type=int, default=200)
    options = parser.parse_args()
    table = csv.writer(sys.stdout, lineterminator="\n")
    counts = [name.replace(" ", "_") for name in MEASURES]
    table.writerow(
        ["seeds", "noise", "sets", *counts, "right", "given", "undecided", "given_right"]
    )
    for seeds in (5, 8, 10, 16):
        for noise in (0.5, 1.0):
            found = [said(number, seeds, noise) for number in range(options.sets)]
            predicts = [tuple(verdict == "predicts" for verdict in one) for one in found]
            right = predicts.count((True, False, False)) / options.sets
            verdicts = Counter(pair for one in found for pair in zip(one, TRUTH, strict=True))
            undecided = sum(number for (one, _), number in verdicts.items() if one == "undecided")
            given = 3 * options.sets - undecided
            given_right = sum(verdicts[one, one] for one in ("predicts", "does not")) / given
            row = [
                seeds,
                noise,
                options.sets,
                *map(sum, zip(*predicts, strict=True)),
                f"{right:.3f}",
            ]
            table.writerow([*row, given, undecided, f"{given_right:.3f}"])
            sys.stdout.flush()


if __name__ == "__main__":
    main()
