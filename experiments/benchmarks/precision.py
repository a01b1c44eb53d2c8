"""Does bfloat16 cost accuracy? Final accuracy on digits in bf16-mixed and in float32.

A small SplitResNet18 learns scikit-learn's handwritten digits, left and right halves, once in each
precision and seed, with everything else alike. Final accuracy is the mean of the last 5 epochs'
test accuracy, in per cent. bf16 passes if its mean is no more than one point below float32's.

    python experiments/benchmarks/precision.py
"""

from __future__ import annotations

import argparse
import logging
import warnings
from functools import partial
from statistics import mean, stdev
from typing import Any, Literal

import pytorch_lightning as pl
import torch

from critical_periods.data import StereoDigitsDataModule
from critical_periods.models import SplitResNet18
from critical_periods.tasks import ClassificationTask

TOLERANCE = 1.0  # points of accuracy
LAST = 5  # epochs that the final accuracy is the mean of

Precision = Literal["bf16-mixed", "32-true"]


class EpochAccuracy(pl.Callback):
    """Keeps the accuracy, in per cent, of every epoch."""

    def __init__(self) -> None:
        self.of_epoch: list[float] = []

    def on_validation_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.of_epoch.append(100 * float(trainer.callback_metrics["val/accuracy"]))


def final_accuracy(precision: Precision, seed: int, epochs: int, width: int) -> float:
    """Trains once; the mean test accuracy of the last epochs, in per cent."""
    pl.seed_everything(seed, verbose=False)
    accuracy = EpochAccuracy()
    task = ClassificationTask(
        SplitResNet18(width, in_channels=1),
        optimizer=partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=5e-4),
        lr_scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.97),
    )
    trainer = pl.Trainer(
        accelerator="auto", devices=1, precision=precision, callbacks=[accuracy],
        max_epochs=epochs, num_sanity_val_steps=0, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    # Digits' test split validates.
    trainer.fit(task, StereoDigitsDataModule(clutter=False))
    return mean(accuracy.of_epoch[-LAST:])


def row(name: object, bf16: float, float32: float, difference: float) -> str:
    return f"{name!s:>6}{bf16:>12.2f}{float32:>12.2f}{difference:>12.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--width", type=int, default=16, help="channels of the first stage")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    print(f"SplitResNet18(width={options.width}), digits, {options.epochs} epochs: % correct")
    print(f"{'seed':>6}{'bf16-mixed':>12}{'32-true':>12}{'difference':>12}")
    pairs = []
    for seed in range(options.seeds):
        bf16, float32 = (
            final_accuracy(precision, seed, options.epochs, options.width)
            for precision in ("bf16-mixed", "32-true")
        )
        pairs.append((bf16, float32, bf16 - float32))
        print(row(seed, *pairs[-1]), flush=True)
    columns = list(zip(*pairs, strict=True))
    means = [mean(column) for column in columns]
    print(row("mean", *means))
    if len(pairs) > 1:
        print(row("SD", *(stdev(column) for column in columns)))
    verdict = "is no more than" if means[2] >= -TOLERANCE else "IS MORE THAN"
    print(f"bf16 {verdict} {TOLERANCE:g} point below float32 (mean difference {means[2]:+.2f})")


if __name__ == "__main__":
    main()
