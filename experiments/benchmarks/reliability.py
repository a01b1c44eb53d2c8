"""Subset simulation and active learning on limit states whose failure probability is known.

    python experiments/benchmarks/reliability.py PART --output experiments/results

writes ``reliability_PART.csv``. The parts: ``subset``, the mean and scatter of many repeats of
subset simulation beside reference and theory; ``active``, a row a problem, method and seed: a deep
kernel and a plain GP with the same active learning, subset simulation alone and Monte Carlo;
``fits``, the log likelihood of held-out points of joint training, of a two-stage fit and of a plain
GP; ``cost``, time and memory of a round at 500 evaluations.
"""

from __future__ import annotations

import argparse
import csv
import resource
import time
from collections.abc import Callable, Container, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from limit_states import PROBLEMS, Problem, four_branches, linear, lognormals, oscillator, quadratic

from critical_periods.reliability import (
    GRID,
    PLAIN,
    ActiveReliability,
    DeepKernelGP,
    subset_simulation,
)
from critical_periods.studies.impairment import next_runs, posterior
from critical_periods.studies.rounds import Chosen, Round
from critical_periods.studies.space import Space, Trained
from critical_periods.studies.tables import write_table

Row = dict[str, Any]
ACTIVE = (linear(100), quadratic(100), lognormals(100))
BUDGET, INITIAL, BATCH = 500, 300, 50


def _rounded(value: float | np.floating[Any]) -> float:
    return float(f"{value:.4g}")


def subset(seeds: int = 50, samples: int = 10_000) -> Iterator[Row]:
    """Each problem's repeats."""
    for problem in PROBLEMS:
        found = [
            subset_simulation(problem.limit_state, problem.dimension, samples, seed=seed)
            for seed in range(seeds)
        ]
        probabilities = np.array([one.probability for one in found])
        mean, truth = probabilities.mean(), problem.check()
        scatter, theory = probabilities.std(ddof=1) / mean, np.mean([one.cov for one in found])
        yield {
            "problem": problem.name, "dimension": problem.dimension, "repeats": seeds,
            "samples": samples, "evaluations": round(np.mean([one.evaluations for one in found])),
            "reference": problem.reference, "independent": _rounded(truth),
            "mean": _rounded(mean), "error": _rounded(mean / truth - 1),
            "scatter": _rounded(scatter), "theory": _rounded(theory),
            "ratio": _rounded(scatter / theory),
        }  # fmt: skip


def active(seeds: int = 10, done: Container[tuple[str, str, int]] = ()) -> Iterator[Row]:
    """Each problem by each method, the costliest last, but those runs of theirs that are done."""
    problems = ACTIVE
    truths = {problem.name: problem.check() for problem in problems}

    def row(problem: Problem, method: str, seed: int, count: int, found: float, **more: Any) -> Row:
        return {
            "problem": problem.name, "dimension": problem.dimension, "method": method,
            "seed": seed, "evaluations": count, "probability": _rounded(found),
            "truth": _rounded(truths[problem.name]), **more,
        }  # fmt: skip

    nothing = {"low": "", "high": "", "architecture": ""}
    for seed, problem in product(range(seeds), problems):
        # About as many evaluations as the active methods need, and as are usual.
        for samples in (140, 1000):
            alone = subset_simulation(problem.limit_state, problem.dimension, samples, seed=seed)
            name = f"subset simulation, {samples} a level"
            yield row(problem, name, seed, alone.evaluations, alone.probability, **nothing)
        for count in (BUDGET, 100_000):
            u = np.random.default_rng(seed).standard_normal((count, problem.dimension))
            share = float((problem.limit_state(u) <= 0).mean())
            yield row(problem, f"Monte Carlo, {count:,}", seed, count, share, **nothing)
    for method, seed, problem in product(("deep kernel", "plain GP"), range(seeds), problems):
        if (problem.name, method, seed) in done:
            continue
        model = DeepKernelGP(GRID if method == "deep kernel" else [PLAIN], seed=seed)
        run = ActiveReliability(problem.dimension, BUDGET, INITIAL, BATCH, model=model, seed=seed)
        last = run.run(problem.limit_state)
        more: Row = {"low": _rounded(last.low), "high": _rounded(last.high)}
        more |= {"architecture": last.architecture}
        yield row(problem, method, seed, last.evaluations, last.probability, **more)


def fits(seeds: int = 3) -> Iterator[Row]:
    """Joint training, two-stage fit and plain GP on the same points."""
    cases = [(oscillator(), 60), (four_branches(), 60), *((one, INITIAL) for one in ACTIVE)]
    methods = {
        "joint": partial(DeepKernelGP),
        "two-stage": partial(DeepKernelGP, joint=False),
        "plain GP": partial(DeepKernelGP, [PLAIN]),
    }
    for seed in range(seeds):
        for problem, count in cases:
            rng = np.random.default_rng(seed)
            x, new = (rng.standard_normal((n, problem.dimension)) for n in (count, 5000))
            y, known = problem.limit_state(x), problem.limit_state(new)
            for method, make in methods.items():
                model = make(seed=seed).fit(x, y)
                found = model.log_likelihood(new, known) + np.log(known.std())
                error = float(((model.mean(new) - known) ** 2).mean() / known.var())
                choice = model.choices[0]
                yield {
                    "problem": problem.name, "dimension": problem.dimension, "points": count,
                    "method": method, "seed": seed, "log_likelihood": _rounded(found),
                    "squared_error": _rounded(error), "architecture": str(choice.architecture),
                    "training_steps": choice.training_steps,
                }  # fmt: skip


def cost(count: int = 500) -> Iterator[Row]:
    """A round after 500 evaluations: choice of an architecture, fit, simulation, next points.

    And one of an adaptive study of three axes after as many runs: fit and next runs.
    """
    yield _cost_in_a_study(count)
    problem = quadratic(100)
    run = ActiveReliability(problem.dimension, count + 4, count, 4)
    points = run.ask()
    assert points is not None
    run.tell(points, problem.limit_state(points))
    wall, cpu = time.perf_counter(), time.process_time()
    run.ask()
    yield {
        "problem": problem.name, "dimension": problem.dimension, "evaluations": count,
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def _cost_in_a_study(count: int) -> Row:
    axes: dict[str, Any] = {"onset": [*range(41)], "length": [*range(2, 21)]}
    axes |= {"deficit.init_args.p": [*np.linspace(0, 1, 41)]}
    space = Space(axes, 80, 0.05, count + 4, count, 4, "either", {}, (0, 1, 2))
    rng, trained = np.random.default_rng(0), Trained(space)
    sizes = [len(of) for of in axes.values()]
    points = [space.point(rng.integers(sizes).tolist()) for _ in range(count)]
    seeds = [space.seed(number) for number in range(count)]
    pairs = zip(points, seeds, strict=True)
    runs = [Chosen(point, seed, trained.add(point, seed)) for point, seed in pairs]
    lost = [p * length / 40 * np.exp(-onset / 20) for onset, length, p in points]
    noisy = list(np.array(lost) + 0.01 * rng.standard_normal(count))
    wall, cpu = time.perf_counter(), time.process_time()
    found = posterior(space, runs, noisy, None)
    next_runs(found, space, [Round(tuple(runs))], 4)
    return {
        "problem": "adaptive study", "dimension": len(axes), "evaluations": count,
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "subset": subset,
    "active": active,
    "fits": fits,
    "cost": cost,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--output", type=Path, required=True, help="folder of the table")
    parser.add_argument("--seeds", type=int, help="how many, from 0 on")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"reliability_{options.part}.csv"
    arguments: dict[str, Any] = {} if options.seeds is None else {"seeds": options.seeds}
    rows: list[Row] = []
    if options.part == "active" and path.exists():
        # It takes long, so it goes on where it was stopped.
        with path.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["architecture"]]
        arguments["done"] = {(row["problem"], row["method"], int(row["seed"])) for row in rows}
    for row in PARTS[options.part](**arguments):
        print(*row.values(), sep="  ", flush=True)
        rows.append(row)
        write_table(path, rows)


if __name__ == "__main__":
    main()
