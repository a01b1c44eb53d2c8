"""What the project measures and trains with, beside what people use today, in one table.

Every row is a ratio of times (of variances, where it says so) that were taken in turns in one run:
how often ours goes into another's, or how often a limit goes into ours. A row gives what it is
compared with, the ratio's median, least and greatest over the rounds, and the limit that it is to
keep. Rows whose peer is not installed (``pip install 'critical-periods[bench]'``, a compiler of
C++) are left out, and named.

    python experiments/benchmarks/bench.py --output experiments/results/bench.csv

takes less than ten minutes on two cores. With ``$CRITICAL_PERIODS_VIDEOS``, a folder of clips, it
has pairs of frames, too. Times are processor times of one process, of its two threads together,
but those of training steps, whose other pipeline has workers.
"""

from __future__ import annotations

import argparse
import copy
import csv
import logging
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import throughput
import torch
from bench_rows import Row, Work, in_turns, ratios
from bench_studies import command_rows, resuming_rows, segment_rows
from bench_training import compiled_rows, seed_rows, training_rows
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import critical_periods.metrics.functional.fisher as fisher
from critical_periods.data import DigitsDataModule
from critical_periods.metrics import RelativeSourceVariance
from critical_periods.metrics.functional import fisher_trace, squared_score_norms
from critical_periods.metrics.functional.node_norms import UnknownUseError
from critical_periods.models import AllCNN, SplitResNet18

ROUNDS = 5
HEADER = ["what", "peer", "median", "least", "greatest", "rounds", "limit", "met", "machine", "day"]


# The Fisher trace.


def by_func(network: nn.Module, images: Tensor, draws: int | None = None) -> Tensor:
    """Ours as of networks that nothing is known of: per-sample gradients by torch.func."""

    def refuse(*_: Any) -> None:
        raise UnknownUseError

    known, fisher.NormsByGraph = fisher.NormsByGraph, refuse  # type: ignore[assignment, misc]
    try:
        return fisher_trace(network, [images], draws, torch.Generator().manual_seed(0))[0]
    finally:
        fisher.NormsByGraph = known  # type: ignore[misc]


def by_nngeometry(network: nn.Module, images: Tensor, draws: int | None = None) -> Tensor:
    from nngeometry.metrics import FIM, FIM_MonteCarlo
    from nngeometry.object import PMatDiag

    examples = DataLoader(TensorDataset(images, torch.zeros(len(images))), 32)
    if draws is None:
        return FIM(network.eval(), examples, PMatDiag).trace()
    return FIM_MonteCarlo(network.eval(), examples, PMatDiag, trials=draws).trace()


def for_backpack(network: nn.Module) -> nn.Module:
    from backpack import extend

    def leaves(module: nn.Module) -> Iterator[nn.Module]:
        found = list(module.children())
        for child in found:
            yield from leaves(child)
        if not found:
            yield nn.ReLU() if isinstance(module, nn.ReLU) else module

    return extend(nn.Sequential(*leaves(copy.deepcopy(network))).eval())


def by_backpack(extended: nn.Module, images: Tensor, draws: int | None = None) -> Tensor:
    from backpack import backpack, extend
    from backpack.extensions import DiagGGNExact, DiagGGNMC

    extension = DiagGGNExact() if draws is None else DiagGGNMC(mc_samples=draws)
    loss, total = extend(nn.CrossEntropyLoss(reduction="sum")), torch.zeros(())
    for part in images.split(32):
        with backpack(extension):
            loss(extended(part), torch.zeros(len(part), dtype=torch.long)).backward()
        total += sum(getattr(p, extension.savefield).sum() for p in extended.parameters())
    return total / len(images)


def fisher_rows(rounds: int, samples: int, width: int) -> Iterator[Row]:
    torch.manual_seed(0)
    network, images = AllCNN(width), torch.randn(samples, 3, 32, 32)
    target, parameters = torch.randint(10, (samples,)), list(network.parameters())
    draws = torch.Generator().manual_seed(0)

    def step() -> None:
        for some, label in zip(images.split(128), target.split(128), strict=True):
            loss = nn.functional.cross_entropy(network.train()(some), label)
            torch.autograd.grad(loss, parameters)

    works: dict[str, Work] = {
        "step": step,
        "exact": lambda: fisher_trace(network, [images]),
        "one draw": lambda: fisher_trace(network, [images], 1, draws),
    }
    taken = in_turns(works, rounds)
    passes = "a forward and backward pass of the same samples"
    yield Row("Fisher trace, exact", passes, ratios(taken, "exact", "step"), 4, False)
    yield Row("Fisher trace, one draw", passes, ratios(taken, "one draw", "step"), 1.1, False)
    # Peers take as long as all the rest together.
    some = images[: max(2, samples // 4)]
    works = {
        "exact": lambda: fisher_trace(network, [some]),
        "one draw": lambda: fisher_trace(network, [some], 1, draws),
        "exact, torch.func": lambda: by_func(network, some),
        "one draw, torch.func": lambda: by_func(network, some, 1),
    }
    if find_spec("nngeometry"):
        works["exact, nngeometry"] = lambda: by_nngeometry(network, some)
        works["one draw, nngeometry"] = lambda: by_nngeometry(network, some, 1)
    if find_spec("backpack"):
        extended = for_backpack(network)
        works["exact, backpack-for-pytorch"] = lambda: by_backpack(extended, some)
        works["one draw, backpack-for-pytorch"] = lambda: by_backpack(extended, some, 1)
    taken = in_turns(works, rounds)
    for name in taken:
        ours, _, peer = name.partition(", ")
        if peer:
            yield Row(f"Fisher trace, {ours}", peer, ratios(taken, name, ours), 1)


def variance_rows(rounds: int, steps: int) -> Iterator[Row]:
    """Variances over draws at the same cost: label draws jump where a network is sure."""
    torch.manual_seed(0)
    data = DigitsDataModule(batch_size=128)
    data.setup()
    device, batches = torch.device("cpu"), []
    for indices in data.measurement_loader("train", 1024):
        moved = data.transfer_batch_to_device(indices, device, 0)
        batches.append(data.on_after_batch_transfer(moved, 0))
    network, images = AllCNN(8, in_channels=1), batches[0].views[:32, 0]
    what = "Fisher trace, variance of one draw"
    yield Row(f"{what}, untrained", "drawn labels", variance_ratios(network, images, rounds), 1)
    optimizer = torch.optim.SGD(network.train().parameters(), lr=0.05, momentum=0.9)
    for step in range(steps):
        batch = batches[step % len(batches)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(batch.views[:, 0]), batch.target).backward()
        optimizer.step()
    yield Row(f"{what}, trained", "drawn labels", variance_ratios(network, images, rounds), 1)


def variance_ratios(network: nn.Module, images: Tensor, rounds: int) -> list[float]:
    """The variance of drawn labels, in closed form, over that of drawn signs, of the same mean."""
    with torch.no_grad():
        p = network.eval()(images).softmax(1).double()
    of_class = class_norms(network, images)
    mean = (p * of_class).sum(1, keepdim=True)
    labels = (p * (of_class - mean).square()).sum()
    draws, found = torch.Generator().manual_seed(0), []
    for _ in range(rounds):
        norms = [
            torch.stack([*squared_score_norms(network, [images], 1, draws).values()]).sum(0)
            for _ in range(8)
        ]
        found.append(float(labels / torch.stack(norms).var(0).sum()))
    return found


def class_norms(network: nn.Module, images: Tensor) -> Tensor:
    """||∇ log p(y|x)||² of each sample and class, [B, K]."""
    found = []
    for image in images:
        log_p = network(image[None]).log_softmax(1)[0]
        of_classes = (
            torch.autograd.grad(one, [*network.parameters()], retain_graph=True) for one in log_p
        )
        found.append([float(sum(g.square().sum() for g in each)) for each in of_classes])
    return torch.tensor(found, dtype=torch.float64)


# Relative source variance.


def rsv_rows(rounds: int, pairs: int, draws: int, width: int) -> Iterator[Row]:
    torch.manual_seed(0)
    network: Any = SplitResNet18(width).eval()
    fixed, pool = ([torch.randn(n, 3, 32, 32) for _ in "ab"] for n in (pairs, draws))
    found: list[Tensor] = []
    network.trunk.stage4.register_forward_hook(lambda *args: found.append(args[-1].clone()))

    def fuse(*features: Tensor) -> Tensor:
        found.clear()
        network.fuse(*features)
        return found.pop()

    def encoded(views: Sequence[Tensor]) -> list[Tensor]:
        return [path(view) for path, view in zip(network.pathways, views, strict=True)]

    def varied(view: int, place: int, of: Sequence[Tensor], by: Sequence[Tensor]) -> list[Tensor]:
        """One fixed sample with all draws of a view."""
        views = [one[place : place + 1].expand_as(some) for one, some in zip(of, by, strict=True)]
        views[view] = by[view]
        return views

    @torch.no_grad()
    def ours() -> None:
        metric = RelativeSourceVariance(fuse, encoded(fixed))
        metric.update(*encoded(pool))
        metric.compute()

    @torch.no_grad()
    def forward() -> None:
        ends = encoded(fixed), encoded(pool)
        for view in range(2):
            for place in range(pairs):
                fuse(*varied(view, place, *ends))

    @torch.no_grad()
    def two_passes() -> None:
        variances = []
        for view in range(2):
            for place in range(pairs):
                found.clear()
                network(*varied(view, place, fixed, pool))
                variances.append(found.pop().var(0, correction=0))
        first, second = torch.stack(variances).chunk(2)
        (first - second) / (first + second)

    taken = in_turns({"ours": ours, "forward": forward, "two": two_passes}, rounds)
    passes = "the forward passes of its samples"
    yield Row("RSV", passes, ratios(taken, "ours", "forward"), 1.1, False)
    yield Row("RSV", "whole passes, once a view", ratios(taken, "two", "ours"), 2)


# Videos.


def frame_rows(rounds: int) -> Iterator[Row]:
    from frame_pairs import frame_seconds

    clips = Path(os.environ["CRITICAL_PERIODS_VIDEOS"])
    found = frame_seconds(clips, pairs=2, rounds=rounds)
    # Of all clips together, as of a training that draws from each alike.
    rounds_of = [
        {way: sum(took for (_, of), took in one.items() if of == way) for _, way in one}
        for one in found
    ]
    peers = {
        "whole": "decoding whole clips",
        "only": "decoding whole clips, converting two frames",
        "torchcodec": "torchcodec, seek_mode=approximate",
    }
    for way, what in (("seeking", "from the key frame"), ("shards", "from shards")):
        for peer, of in peers.items():
            if peer in rounds_of[0]:
                yield Row(f"Pairs of frames {what}", of, [o[peer] / o[way] for o in rounds_of], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/bench.csv"))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at least five count")
    parser.add_argument("--small", action="store_true", help="a try of less than a minute")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    rounds, small = options.rounds, options.small
    parts = {
        "Fisher trace": fisher_rows(rounds, 16 if small else 256, 4 if small else 48),
        "variance": variance_rows(rounds, 4 if small else 60),
        "RSV": rsv_rows(rounds, 2 if small else 10, 8 if small else 128, 4 if small else 16),
        "commands": command_rows(rounds, 99 if small else 9900),
        "segments": segment_rows(rounds),
        "resuming": resuming_rows(rounds, 99 if small else 6700),
        "training": training_rows(rounds, 1, 4 if small else 64),
        "seeds": seed_rows(rounds, 1 if small else 3),
    }
    missing = [name for name in ("nngeometry", "backpack", "torchcodec") if not find_spec(name)]
    if not shutil.which(os.environ.get("CXX", "c++")):
        missing.append("a compiler of C++")
    elif not small:
        parts["compiled"] = compiled_rows(rounds, 20)
    if "CRITICAL_PERIODS_VIDEOS" in os.environ:
        parts["videos"] = frame_rows(rounds)
    else:
        missing.append("$CRITICAL_PERIODS_VIDEOS")
    where, day, rows = throughput.machine(), datetime.now(UTC).date().isoformat(), []
    print(f"machine: {where}")
    for name, part in parts.items():
        start = time.perf_counter()
        for row in part:
            rows.append([*row.cells(), where, day])
            print("  ".join(map(str, row.cells())), flush=True)
        print(f"({name}: {time.perf_counter() - start:.0f} s)", flush=True)
    if missing:
        print(f"without rows that need {', '.join(missing)}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with options.output.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


if __name__ == "__main__":
    main()
