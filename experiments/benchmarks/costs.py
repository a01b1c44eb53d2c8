"""What the studies of full scale cost: epochs, samples and floating-point operations.

For each study: how many runs it has, the epochs that it trains where runs share their beginnings
and those that separate runs would train, the operations of one training step a sample (forward and
backward, as ``torch.utils.flop_counter`` counts convolutions and matrix products), and of all
steps. Nothing is trained and no data set is needed: the trees of segments do not depend on it, and
a step is counted on a few made-up samples. Validation and measures are not counted.

    python experiments/benchmarks/costs.py [STUDY ...]

prints the rows of ``experiments/results/costs.csv``. Divided by what a GPU sustains in one's own
training, the last column gives its hours.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from critical_periods.core.trainer import callbacks_of
from critical_periods.data import MovingDigitsDataModule
from critical_periods.data.video.moving_digits_video import write_videos
from critical_periods.runs.lightning_cli import CLI
from critical_periods.studies.plan import Plan, make_plan
from critical_periods.studies.resolve import resolve
from critical_periods.studies.study import read_study

STUDIES = Path(__file__).parents[1] / "studies"
# Training samples of CIFAR-10, and about as many clips as Kinetics-400 has.
SAMPLES = {"cifar10": 50_000, "kinetics": 240_000}
# On any machine, without a GPU.
ONE_STEP = {
    "accelerator": "cpu", "devices": 1, "precision": "32-true", "logger": False, "max_steps": 1,
    "limit_val_batches": 0, "enable_checkpointing": False, "enable_progress_bar": False,
    "enable_model_summary": False,
}  # fmt: skip
BATCH = 4


def full_studies() -> list[str]:
    """Those on CIFAR-10 and Kinetics whose epochs all have the same length."""
    names = (path.stem for path in STUDIES.glob("*.yaml") if not path.stem.endswith("_mini"))
    return sorted(name for name in names if data_of(name) is not None)


def data_of(name: str) -> str | None:
    """Which data set a study is on, by its base run; ``None`` where it is not always all of one."""
    text = (STUDIES / f"{name}.yaml").read_text()
    base = next(line for line in text.splitlines() if line.startswith("base:"))
    if "_mini" in base or "SubsetWindow" in text:
        return None
    return next((data for data in SAMPLES if data in base), None)


def write_pictures(root: Path) -> None:
    """A folder of random pictures of CIFAR-10's size and number of classes."""
    for part in ("train", "test"):
        for label in range(10):
            folder = root / part / str(label)
            folder.mkdir(parents=True)
            pixels = np.random.default_rng(label).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "0.png")


def plan_of(name: str, root: Path) -> Plan:
    roots = [f"data.init_args.root={root}"]
    if "finetuning:" in (STUDIES / f"{name}.yaml").read_text():
        roots.append(f"finetuning.data.init_args.root={root}")
    study = read_study(STUDIES / f"{name}.yaml", roots)
    return make_plan(study, *resolve(study))


class Counter(pl.Callback):
    """Counts the operations of a step, forward and backward."""

    def on_train_batch_start(self, *args: Any) -> None:
        self.mode = FlopCounterMode(display=False)
        self.mode.__enter__()

    def on_after_backward(self, *args: Any) -> None:
        self.mode.__exit__(None, None, None)


def operations(config: dict[str, Any]) -> float:
    """Of a training step, a sample."""
    data = config["data"]["init_args"] | {"batch_size": BATCH}
    if "num_workers" in data:
        data["num_workers"] = 0
    config = config | {"trainer": ONE_STEP, "data": config["data"] | {"init_args": data}}
    cli = CLI(config, run=False, logger=False)
    counter = Counter()
    callbacks_of(cli.trainer).append(counter)
    cli.trainer.fit(cli.model, cli.datamodule)
    return counter.mode.get_total_flops() / BATCH


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="*", default=full_studies())
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(
        ["study", "runs", "segments", "epochs", "separate_epochs", "samples_per_epoch",
         "gflop_per_sample", "exaflop"]
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        roots = {data: Path(folder) / data for data in SAMPLES}
        write_pictures(roots["cifar10"])
        write_videos(roots["kinetics"], MovingDigitsDataModule(label="motion"), train=12, val=8)
        for name in options.studies:
            data = data_of(name)
            if data is None:
                parser.error(f"{name} is on no data set of {', '.join(SAMPLES)}")
            plan = plan_of(name, roots[data])
            epochs: dict[int, int] = defaultdict(int)
            for segment in plan.segments.values():
                epochs[segment.config] += segment.stop - segment.start
            steps = {number: operations(plan.configs[number][0]) for number in epochs}
            total = sum(epochs[number] * SAMPLES[data] * each for number, each in steps.items())
            least, most = (f"{end(steps.values()) / 1e9:.3g}" for end in (min, max))
            table.writerow(
                [name, len(plan.runs), len(plan.segments), plan.epochs, plan.separate_epochs,
                 SAMPLES[data], least if least == most else f"{least} to {most}",
                 f"{total / 1e18:.3g}"]
            )  # fmt: skip
            sys.stdout.flush()


if __name__ == "__main__":
    main()
