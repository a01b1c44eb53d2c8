"""Images a second of whole training steps: this package beside a conventional pipeline.

Both train SplitResNet18 on the left and right crops of CIFAR-10, 128 images a batch, with the
same SGD. Ours is StereoCIFAR10DataModule and ClassificationTask under Lightning's Trainer, in
bf16-mixed or, where a matrix product is faster so, in float32. The conventional one is
torchvision's data set with PIL transforms in a DataLoader of 2 workers, and a plain float32 loop in
the default memory layout. A step is everything: data,
transfer, forward, backward, optimiser. The two take turns in blocks of a few steps, so that a
machine whose speed drifts slows both.

    python experiments/benchmarks/throughput.py --root DATA

DATA holds ``cifar-10-batches-py`` or ``train/<class>/*`` and ``test/<class>/*``; without it the
images are noise held in memory. On a GPU steps are short: give ``--batches 100`` or more.
"""

from __future__ import annotations

import argparse
import logging
import platform
import re
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import CIFAR10, ImageFolder

from critical_periods.data import StereoCIFAR10DataModule
from critical_periods.data.batch_stage import Images
from critical_periods.models import SplitResNet18
from critical_periods.runs.precision import fastest_precision
from critical_periods.tasks import ClassificationTask

BATCH = 128
CROP = 16
WARM_UP = 2  # steps at the start of each block that are not timed
SGD = partial(torch.optim.SGD, lr=0.075, momentum=0.9, weight_decay=5e-4)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def now() -> float:
    """Seconds, once all that was asked of the device is done."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# What stands in for CIFAR-10 where there is none.


def noise() -> Images:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (100 * BATCH, 3, 32, 32), dtype=torch.uint8, generator=draws)
    return Images(pixels, torch.randint(10, (len(pixels),), generator=draws))


class NoiseDataModule(StereoCIFAR10DataModule):
    def load(self) -> tuple[Images, Images]:
        return noise(), noise()


class NoiseDataset(Dataset):
    def __init__(self, transform: Callable[[Image.Image], Any]) -> None:
        self.pixels, self.targets = noise()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[Any, int]:
        picture = Image.fromarray(self.pixels[place].permute(1, 2, 0).numpy())
        return self.transform(picture), int(self.targets[place])


# The conventional pipeline.


def left_and_right(image: Tensor) -> tuple[Tensor, Tensor]:
    left, right = image.clone(), image.clone()
    left[..., CROP:] = 0
    right[..., :-CROP] = 0
    return left, right


def conventional_data(root: Path | None) -> Dataset:
    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
            left_and_right,
        ]
    )
    if root is None:
        return NoiseDataset(transform)
    if (root / "train").is_dir():
        return ImageFolder(root / "train", transform)
    return CIFAR10(root, transform=transform)


class Conventional:
    """A plain loop, run a block at a time."""

    def __init__(
        self, root: Path | None, width: int, precision: str = "32-true", workers: int = 2
    ) -> None:
        self.is_mixed = precision == "bf16-mixed"
        self.network = SplitResNet18(width).to(DEVICE)
        self.optimizer = SGD(self.network.parameters())
        self.loader = DataLoader(
            conventional_data(root), BATCH, shuffle=True, num_workers=workers,
            pin_memory=DEVICE.type == "cuda",
        )  # fmt: skip

    def block(self, steps: int) -> float:
        """Images a second of some steps; the workers live no longer than the block."""
        batches = iter(self.loader)
        for step in range(WARM_UP + steps):
            if step == WARM_UP:
                start = now()
            (left, right), target = next(batches)
            left, right = left.to(DEVICE, non_blocking=True), right.to(DEVICE, non_blocking=True)
            target = target.to(DEVICE, non_blocking=True)
            with torch.autocast(DEVICE.type, torch.bfloat16, enabled=self.is_mixed):
                loss = nn.functional.cross_entropy(self.network(left, right), target)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return BATCH * steps / (now() - start)


# Ours.


class TakeTurns(pl.Callback):
    """Times the Trainer's steps in blocks, and lets the other pipeline run after each.

    Args:
        steps: timed steps in a block.
        other: runs a block of the other pipeline and gives its images a second.
    """

    def __init__(self, steps: int, other: Callable[[int], float]) -> None:
        self.steps, self.other = steps, other
        self.rates: list[tuple[float, float]] = []
        self.start = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        done = trainer.global_step % (WARM_UP + self.steps)
        if done == WARM_UP:
            self.start = now()
        elif done == 0:
            ours, theirs = BATCH * self.steps / (now() - self.start), self.other(self.steps)
            self.rates.append((ours, theirs))
            print(row(len(self.rates), ours, theirs, ours / theirs), flush=True)


def row(name: object, ours: float, theirs: float, ratio: float) -> str:
    return f"{name!s:>6}{ours:>10.1f}{theirs:>14.1f}{ratio:>8.2f}"


def compare(
    root: Path | None,
    steps: int,
    rounds: int,
    width: int,
    theirs: str = "32-true",
    workers: int = 2,
    compiled: bool = False,
) -> list[tuple[float, float]]:
    """Images a second of ours and of the conventional pipeline, a pair a round.

    Ours is in the precision that ``trainer.precision: auto`` has here.
    """
    turns = TakeTurns(steps, Conventional(root, width, theirs, workers).block)
    ours: Any = fastest_precision(DEVICE.type)
    data = NoiseDataModule() if root is None else StereoCIFAR10DataModule(root)
    trainer = pl.Trainer(
        accelerator=DEVICE.type, devices=1, precision=ours, callbacks=[turns],
        max_epochs=-1, max_steps=rounds * (WARM_UP + steps), limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    network = SplitResNet18(width)
    if compiled:
        network.compile()
    trainer.fit(ClassificationTask(network, optimizer=SGD), data)
    return turns.rates


def machine() -> str:
    """What the figures were measured on, in a line."""
    path = Path("/proc/cpuinfo")
    described = path.read_text() if path.exists() else ""
    name = re.search(r"model name\s*: (.*)", described)
    flags = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in described.split()]
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    return (
        f"{name[1] if name else platform.processor()} ({', '.join(flags) or 'no bf16 units'}), "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, device {device}"
    )


def product_ratio(size: int = 2048, rounds: int = 10) -> float:
    """How much faster a matrix product is in bf16 than in float32: what is to be had at most."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(size, size, dtype=dtype, device=DEVICE)
        matrix @ matrix
        start = now()
        for _ in range(rounds):
            matrix @ matrix
        seconds.append(now() - start)
    return seconds[0] / seconds[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, help="where CIFAR-10 is (default: noise in memory)")
    parser.add_argument("--batches", type=int, default=4, help="timed steps in a block")
    parser.add_argument("--rounds", type=int, default=3, help="blocks of each pipeline")
    parser.add_argument("--width", type=int, default=64, help="channels of the first stage")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers")

    print(f"SplitResNet18(width={options.width}), {BATCH} images a batch, images a second")
    print(f"data: {options.root or 'noise in memory, no --root given'}")
    print(f"machine: {machine()}")
    print(f"a matrix product is {product_ratio():.2f} times as fast in bf16 as in float32 here")
    print(f"{'round':>6}{'ours':>10}{'conventional':>14}{'ratio':>8}")
    rates = compare(options.root, options.batches, options.rounds, options.width)
    ours, theirs = (median(rate) for rate in zip(*rates, strict=True))
    print(row("median", ours, theirs, median(a / b for a, b in rates)))


if __name__ == "__main__":
    main()
