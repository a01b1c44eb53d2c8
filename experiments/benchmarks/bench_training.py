"""Training steps beside those of others, and by ways that a study goes without."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import throughput
import torch
from bench_rows import Row, Work, in_turns, ratios
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from critical_periods.models import AllCNN, SplitAllCNN

# What leaving compilation, or seeds side by side, out of studies is judged by: 0.85 of the time.
WORTH_IT = round(1 / 0.85, 2)
SEEDS = 4


def training_rows(rounds: int, batches: int, width: int) -> Iterator[Row]:
    throughput.WARM_UP = 1
    for theirs in ("32-true", "bf16-mixed"):
        with redirect_stdout(sys.stderr):
            rates = throughput.compare(None, batches, rounds, width, theirs)
        peer = f"a conventional pipeline in {theirs}, two workers"
        yield Row("Training steps of SplitResNet18", peer, [a / b for a, b in rates], 1)
    yield Row(
        "A matrix product in bf16",
        "float32",
        [throughput.product_ratio() for _ in range(rounds)],
        1,
    )


Example = tuple[nn.Module, list[Tensor], Tensor]


def examples(seed: int) -> dict[str, Example]:
    """Networks of small studies with a batch of each, channels last, as they are trained."""
    torch.manual_seed(seed)
    two_eyes = SplitAllCNN(depth=2, width=12, in_channels=1)
    found: dict[str, Example] = {}
    for name, network, shapes in (
        ("the quickstart's network", two_eyes, [(1, 8, 8)] * 2),
        ("AllCNN of width 16", AllCNN(16), [(3, 32, 32)]),
    ):
        views = [torch.randn(32, *shape).to(memory_format=torch.channels_last) for shape in shapes]
        network.train().to(memory_format=torch.channels_last)
        found[name] = network, views, torch.randint(10, (32,))
    return found


def optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=5e-4, fused=True)


def steps(network: Any, views: list[Tensor], target: Tensor, number: int) -> Work:
    """So many training steps of a network, which may be a compiled one."""
    sgd = optimizer(network.parameters())

    def work() -> None:
        for _ in range(number):
            nn.functional.cross_entropy(network(*views), target).backward()
            sgd.step()
            sgd.zero_grad()

    return work


def compiled_rows(rounds: int, number: int) -> Iterator[Row]:
    """On one thread, as small studies are trained; what compiling takes is not counted."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for name, (network, views, target) in examples(0).items():
        compiled = torch.compile(copy.deepcopy(network))
        works = {"eager": steps(network, views, target, number)}
        works["compiled"] = steps(compiled, views, target, number)
        taken = in_turns(works, rounds)
        what = f"Training steps of {name}, compiled by torch.compile"
        yield Row(what, "eager", ratios(taken, "eager", "compiled"), WORTH_IT)
    torch.set_num_threads(threads)


def stacked(given: list[Example]) -> tuple[Any, dict[str, Tensor]]:
    """The losses of several seeds' networks by torch.func, and the parameters of all of them."""
    parameters, buffers = stack_module_state([copy.deepcopy(network) for network, *_ in given])
    buffers = {name: one for name, one in buffers.items() if "num_batches" not in name}
    base = copy.deepcopy(given[0][0]).to("meta")
    for module in base.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = None  # It would be counted in place, by all at once.
    views = [
        torch.stack(of_view) for of_view in zip(*(views for _, views, _ in given), strict=True)
    ]
    targets = torch.stack([target for *_, target in given])

    def loss(own: dict[str, Tensor], kept: dict[str, Tensor], y: Tensor, *x: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(base, ({**own}, {**kept}), x), y)

    def losses() -> Tensor:
        return torch.func.vmap(loss)(parameters, buffers, targets, *views)

    return losses, parameters


def seed_rows(rounds: int, number: int) -> Iterator[Row]:
    """The seeds of a run in one network of stacked parameters, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    seeds = [examples(seed) for seed in range(SEEDS)]
    for name in seeds[0]:
        given = [of[name] for of in seeds]
        losses, parameters = stacked(given)
        sgd = optimizer(parameters.values())

        def together(losses: Any = losses, sgd: Any = sgd) -> None:
            for _ in range(number):
                losses().sum().backward()
                sgd.step()
                sgd.zero_grad()

        alone = [steps(*one, number) for one in given]

        def in_turn(alone: list[Work] = alone) -> None:
            for work in alone:
                work()

        taken = in_turns({"alone": in_turn, "together": together}, rounds)
        what = f"Training steps of {name}, {SEEDS} seeds at once by torch.func"
        yield Row(what, "one seed after another", ratios(taken, "alone", "together"), WORTH_IT)
    torch.set_num_threads(threads)
