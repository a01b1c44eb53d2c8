"""Training on one GPU, in less than eight minutes: images a second, and what a large study takes.

SplitResNet18 on noise of CIFAR-10's size, 128 images a batch, resident on the device: by this
package in bf16, as it is and compiled, beside a conventional float32 pipeline of three workers, in
turns. Then how often a step waits for the device, and how long the weak-eye study of Kleinman et
al. 2023, Fig. 4 and 5 (left), would take at the rates that were measured.

    python experiments/benchmarks/bench_gpu.py

No figures of it are committed as long as the project has no GPU to measure on.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from statistics import median

import pytorch_lightning as pl
import torch
from throughput import BATCH, DEVICE, SGD, NoiseDataModule, compare, machine

from critical_periods.models import SplitResNet18
from critical_periods.tasks import ClassificationTask

GOAL = 10  # times the images a second of the conventional pipeline
EPOCHS, SAMPLES = 1980, 50_000  # of the study's tree of segments


def waits(width: int, steps: int) -> int:
    """How often some steps of ours make the host wait for the device, but for the first ones."""

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: object) -> None:
            if DEVICE.type == "cuda" and trainer.global_step == steps:
                torch.cuda.set_sync_debug_mode("warn")

        def on_train_end(self, *_: object) -> None:
            if DEVICE.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")

    trainer = pl.Trainer(
        accelerator=DEVICE.type, devices=1, precision="bf16-mixed", callbacks=[Watch()],
        max_steps=2 * steps, limit_val_batches=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        trainer.fit(ClassificationTask(SplitResNet18(width), optimizer=SGD), NoiseDataModule())
    return sum("synchronizing" in str(one.message) for one in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=100, help="timed steps in a block")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers")
    torch.set_float32_matmul_precision("high")
    print(f"machine: {machine()}")
    for compiled in (False, True):
        print("compiled" if compiled else "as it is")
        rates = compare(
            None, options.batches, options.rounds, options.width, workers=3, compiled=compiled
        )
        ratio, rate = median(a / b for a, b in rates), median(ours for ours, _ in rates)
        hours = EPOCHS * SAMPLES / rate / 3600
        print(f"{ratio:.1f} times the conventional pipeline; at least {GOAL} is the goal")
        print(f"{EPOCHS:,} epochs of {SAMPLES:,} images would take {hours:.2f} hours")
    often = waits(options.width, 10)
    print(f"10 steps of {BATCH} images wait for the device {often} times")


if __name__ == "__main__":
    main()
