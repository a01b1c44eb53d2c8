"""How long a study takes in a cluster's queue, as a job a segment and as a job a path.

A simulation. A job may begin when the job that its first segment's parent is trained in has ended
and it has then waited in the queue, as waiting for another job earns no priority; it takes the
first GPU that is free, the longest way to go first.

    python experiments/benchmarks/queues.py [--study STUDY] [--gpus N] [--seconds S]

prints the rows of ``experiments/results/queues.csv``. S are of an epoch.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import sys
import tempfile
from pathlib import Path

from costs import plan_of, write_pictures

from critical_periods.studies.paths import paths
from critical_periods.studies.plan import Plan

WAITS = (0, 1)  # hours


def hours(plan: Plan, whole: bool, gpus: int, seconds: float, wait: float) -> float:
    """From the submission to the end of the last job."""
    jobs = paths(plan, set(plan.segments), whole)
    remaining = plan.remaining()
    after = {name: job for job in jobs for name in job}
    free = [0.0] * gpus
    ended: dict[tuple[str, ...], float] = {}
    ready = [(wait, -remaining[job[0]], job) for job in jobs if not plan.segments[job[0]].parent]
    while ready:
        begins = max(min(ready)[0], free[0])
        # Of those that may begin by then, the one with the longest way to go.
        _, _, job = chosen = min((one for one in ready if one[0] <= begins), key=lambda one: one[1])
        ready.remove(chosen)
        epochs = sum(plan.segments[name].stop - plan.segments[name].start for name in job)
        ended[job] = begins + epochs * seconds / 3600
        heapq.heapreplace(free, ended[job])
        for other in jobs:
            parent = plan.segments[other[0]].parent
            if parent is not None and after[parent] == job:
                ready.append((ended[job] + wait, -remaining[other[0]], other))
    return max(ended.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--study", default="kleinman2023_weak_eye", help="on CIFAR-10")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(Path(folder))
        plan = plan_of(options.study, Path(folder))
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["study", "job", "gpus", "seconds_per_epoch", "wait", "hours"])
    for name, whole in (("segment", False), ("path", True)):
        for wait in WAITS:
            took = hours(plan, whole, options.gpus, options.seconds, wait)
            table.writerow(
                [options.study, name, options.gpus, f"{options.seconds:g}", wait, f"{took:.1f}"]
            )


if __name__ == "__main__":
    main()
