"""Four deficits and a weak eye at full width on one GPU, within minutes.

``achille2019_deficits`` (All-CNN of width 96) and ``kleinman2023_weak_eye`` (SplitResNet18 of width
64) on all of CIFAR-10 in bf16, with one seed, the removals 0 and 20, and 40 clean epochs instead of
160 and 180; schedules are those of the papers.

    python experiments/benchmarks/full_width.py DIR [--output OUT] [--minutes 8] [--jobs 4]

DIR is the data's root. Each study may take its share of the minutes; what is not done by then is
not in its tables, and the same command goes on from there. Tables and figures are in OUT/deficits
and OUT/weak_eye. ``--try`` trains one batch an epoch, on a CPU and with one removal, to see that
all is in place.

Single runs of others, for comparison: an All-CNN of width 96 with 160 clean epochs ends at 92.0,
86.8 and 82.9 % after 0, 40 and 100 blurred epochs (RoniLeor), another with 140 epochs in all at
89.4, 86.1, 83.2 and 81.2 % after 0, 35, 70 and 105 (Krzepkowski).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

STUDIES = Path(__file__).parents[1] / "studies"
# With the shares of the minutes, about as their floating-point operations are.
PARTS = {"deficits": ("achille2019_deficits", 0.55), "weak_eye": ("kleinman2023_weak_eye", 1.0)}
SETTINGS = ["windows={removal: [0, 20], epochs_after: 40}", "seeds=[0]"]
TRIED = [
    "windows={removal: [1], epochs_after: 1}", "trainer.accelerator=cpu",
    "trainer.precision=32-true", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1",
]  # fmt: skip
# For tables and figures of what is done, which start Python anew.
TABLES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", help="the data's root")
    parser.add_argument("--output", type=Path, default=Path("runs/full_width"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--jobs", type=int, default=4, help="runs at once on the GPU")
    parser.add_argument("--try", action="store_true", dest="is_tried")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    for name, (study, share) in PARTS.items():
        settings = [*SETTINGS, *(TRIED if options.is_tried else [])]
        call = [str(STUDIES / f"{study}.yaml"), "--output", str(options.output / name)]
        for one in [*settings, f"data.init_args.root={options.root}"]:
            call += ["--set", one]
        left = share * (end - time.monotonic()) - TABLES
        if not run_for(left, "run", *call, "--jobs", str(options.jobs)):
            print(f"{name}: out of time; the tables hold what is done.")
            run_for(TABLES, "plot", *call)


def run_for(seconds: float, command: str, *arguments: str) -> bool:
    """Whether a command of studies has ended by itself in so many seconds; if not, it is told to.

    Raises:
        SystemExit: it has failed.
    """
    words = [sys.executable, "-m", "critical_periods", "study", command, *arguments]
    with subprocess.Popen(words) as process:
        try:
            code = process.wait(timeout=max(seconds, 1))
        except subprocess.TimeoutExpired:
            process.terminate()
            return False
    if code:
        raise SystemExit(code)
    return True


if __name__ == "__main__":
    main()
