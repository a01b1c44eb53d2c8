"""Fig. 2 and 3 of Kleinman, Achille & Soatto (CVPR 2023): linear dynamics, synthetic RSV.

Writes fig2 and fig3 as PNG and PDF, and gaps.csv, how far closed form, differential equation and
gradient descent are apart, in under a minute on one core.

    python experiments/kleinman2023_theory.py --output runs/kleinman2023_theory
"""

from __future__ import annotations

import argparse
import csv
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from critical_periods.linear import (
    FIGURE_3,
    BetaWeights,
    Comparison,
    DeepLinear,
    Dropped,
    compare,
    deep_weights,
    five_tasks,
    gradient_descent,
    gradient_flow,
    product,
    random_starts,
    rsv_cdf,
    sample_views,
    views_covariance,
)
from critical_periods.metrics.functional import relative_source_variance, source_variance
from critical_periods.plots import plot_linear_dynamics, plot_synthetic_rsv, save

A0 = 1e-4
TIMES = np.linspace(0, 10, 201)
CASES = {
    "all sensors": (),
    "sensor 3 dropped": (Dropped(2),),
    "sensor 3 back at t = 6": (Dropped(2, removal=6.0),),
}
WIDTHS = (4, 8, 16, 32, 64, 128, 256)
SHOWN = 16
SEEDS = 8
UNITS = 20_000
DRAWS = 2_000
COMMON, NOISES = 1.0, (1.0, 1.0)


def random_course(width: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Starts whose modes begin at A0 on average, and the flow from there."""
    std = np.sqrt(2 * A0 / width)
    starts = random_starts([8, width, 5], std, np.random.default_rng(seed))
    return starts, product(gradient_flow(five_tasks(), starts, TIMES))


def draw_dynamics(output: Path) -> None:
    sigma = five_tasks()
    cases = {}
    rows: list[tuple[str, str, int, str]] = []
    for name, dropped in CASES.items():
        shallow, deep = (compare(sigma, depth, A0, TIMES, dropped) for depth in (1, 2))
        cases[name] = shallow, deep
        gaps = ", ".join(f"{case.gap:.1e}" for case in cases[name])
        print(f"{name}: largest difference of the three ways {gaps} (shallow, deep)")
        rows += [
            ("balanced", name, depth, f"{case.gap:.2g}")
            for depth, case in enumerate(cases[name], 1)
        ]

    closed = deep_weights(sigma, A0, TIMES)
    starts, flow = random_course(SHOWN, seed=0)
    trained = gradient_descent(DeepLinear(starts), sigma, TIMES, step=2e-4)
    scattered = (
        f"random weights, {SHOWN} hidden units",
        Comparison(TIMES, closed, flow, product(trained)),
    )
    gaps_of = {
        width: [float(abs(random_course(width, s)[1] - closed).max()) for s in range(SEEDS)]
        for width in WIDTHS
    }
    for width, found in gaps_of.items():
        print(f"{width} hidden units, random weights: median gap {np.median(found):.2f}")
        rows.append(("random", f"{width} hidden units", 2, f"{np.median(found):.2g}"))
    with (output / "gaps.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("start", "case", "depth", "gap"), *rows])
    save(plot_linear_dynamics(cases, scattered, gaps_of), output / "fig2")


def measured_rsv(distribution: BetaWeights, rng: np.random.Generator) -> Tensor:
    """The RSV of every unit, measured as that of a network is."""
    units = UNITS if distribution.reversed_half else UNITS // 2
    of_a, of_b = torch.from_numpy(distribution.sample(units, rng))
    pools = torch.from_numpy(sample_views(COMMON, NOISES, DRAWS, rng)).unsqueeze(-1)
    fixed = [pool[:1] for pool in pools]
    variances = [
        source_variance(lambda a, b: of_a * a + of_b * b, fixed, pool, view, batch_size=64)
        for view, pool in enumerate(pools)
    ]
    return relative_source_variance(torch.stack(variances))[0]


def draw_rsv(output: Path) -> None:
    rng = np.random.default_rng(0)
    covariance = views_covariance(COMMON, NOISES)
    measured = []
    for weights in FIGURE_3:
        halves = "two halves" if weights.reversed_half else "one population"
        name = f"α = {weights.alpha:g}, β = {weights.beta:g}, {halves}"
        cdf = partial(rsv_cdf, distribution=weights, covariance=covariance)
        measured.append((name, measured_rsv(weights, rng), cdf))
    save(plot_synthetic_rsv(measured), output / "fig3")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder for the figures")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    draw_dynamics(output)
    draw_rsv(output)


if __name__ == "__main__":
    main()
