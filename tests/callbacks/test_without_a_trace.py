"""Training with all monitors on has the bits of training without them, whatever keeps state."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from small_runs import quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, Subset

from critical_periods.callbacks import (
    DeficitWindow,
    FisherMonitor,
    SourceVarianceMonitor,
    UsableInformationMonitor,
    WeightInformationMonitor,
)
from critical_periods.deficits import Blur
from critical_periods.metrics.functional import fisher_trace

LEFT, RIGHT = torch.randn(2, 24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(24) % 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where arrays go without a logger."""
    monkeypatch.chdir(tmp_path)


class Pairs(Dataset):
    """Two views and a target; ``noise`` draws what is added to a view."""

    def __init__(self, noise: Any = lambda: 0.0) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return len(TARGET)

    def __getitem__(self, place: int) -> Any:
        return LEFT[place] + self.noise(), RIGHT[place] + self.noise(), TARGET[place]


class OfNumPy:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __call__(self) -> Any:
        return float(self.generator.normal())


class Counting:
    """Says how often it was asked, as a curriculum does."""

    calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return self.calls / 100


class CountingSampler(Sampler):
    """Another order each time that it is asked for one."""

    epoch = 0

    def __len__(self) -> int:
        return len(TARGET)

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.epoch))
        return iter(order.tolist())


class OnePass(IterableDataset):
    """A stream that can be read but once."""

    def __init__(self) -> None:
        pairs = Pairs()
        self.stream = (pairs[place % 24] for place in range(40))

    def __iter__(self) -> Iterator[Any]:
        return self.stream


class Locked(Pairs):
    """A data set that cannot be copied, with a generator of its own."""

    def __init__(self) -> None:
        super().__init__(OfNumPy())
        self.file = open(__file__)  # noqa: SIM115


def loader(data: Any, **settings: Any) -> DataLoader:
    return DataLoader(data, 8, **settings)


def halves(kind: Any) -> tuple[Any, Any]:
    """Training and validation on parts of one data set."""
    data = kind()
    parts = Subset(data, range(16)), Subset(data, range(16, 24))
    return loader(parts[0], shuffle=True), loader(parts[1])


# Loaders of training and validation that keep state, each kind in its own way.
KINDS: dict[str, Any] = {
    "NumPy generator": lambda: halves(lambda: Pairs(OfNumPy())),
    "counting transform": lambda: halves(lambda: Pairs(Counting())),
    "cannot be copied": lambda: halves(Locked),
    "counting sampler": lambda: (loader(Pairs(), sampler=CountingSampler()), loader(Pairs())),
    "sampler with a generator": lambda: (
        loader(Pairs(), sampler=RandomSampler(range(24), generator=torch.Generator())),
        loader(Pairs(), shuffle=True, generator=torch.Generator()),
    ),
    "one pass": lambda: (loader(OnePass()), loader(Pairs())),
    "global draws": lambda: (
        loader(Pairs(lambda: np.random.normal() + torch.randn(())), shuffle=True),
        loader(Pairs()),
    ),
    "persistent workers": lambda: (
        loader(Pairs(OfNumPy()), num_workers=1, persistent_workers=True, shuffle=True),
        loader(Pairs(OfNumPy()), num_workers=1, persistent_workers=True),
    ),
}


class Network(nn.Module):
    """Remembers its calls in every way a forward pass can."""

    def __init__(self) -> None:
        super().__init__()
        self.eye, self.norm, self.head = nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("moving", torch.zeros(6))
        self.calls, self.log, self.seen = 0, [], {}  # type: ignore[var-annotated]
        self.generator = np.random.default_rng(0)
        self.norm.register_forward_hook(lambda module, args, output: self.log.append(output))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        self.calls += 1
        self.steps = self.steps + 1
        both = self.eye(left.flatten(1)) + self.eye(right.flatten(1)) * self.generator.normal()
        self.features = self.norm(both)
        with torch.no_grad():
            self.moving.mul_(0.9)
        self.seen["last"] = self.features
        return self.head(self.features + self.steps / 100 + self.moving)


class Project(pl.LightningModule):
    def __init__(self, network: Any = Network) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = network()
        self.received: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.received.append([part.clone() for part in batch])
        return F.cross_entropy(self.network(*batch[:2]), batch[2])

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def monitors(split: str, layer: str = "norm") -> list[Any]:
    return [
        FisherMonitor(1, split, samples=12),
        WeightInformationMonitor(1, split, samples=10, steps=1),
        UsableInformationMonitor(1, split, samples=9),
        SourceVarianceMonitor([layer], 1, split, samples=6, pairs=3),
    ]


def fit(project: Any, loaders: Any, *callbacks: Any, ckpt_path: Any = None, **settings: Any) -> Any:
    trainer = quiet_trainer(*callbacks, **({"max_epochs": 3} | settings))
    trainer.fit(project, *loaders, ckpt_path=ckpt_path)
    return trainer


def trained(kind: str, *callbacks: Any) -> Any:
    pl.seed_everything(1, workers=True, verbose=False)
    project = Project()
    fit(project, KINDS[kind](), *callbacks)
    return project


@pytest.mark.parametrize("kind", KINDS)
def test_all_monitors_leave_the_bits_alone(kind: str):
    alone = trained(kind)
    for split in ("train", "val"):
        watched = trained(kind, *monitors(split))
        assert len(watched.received) == len(alone.received) > 3
        pairs = zip(watched.received, alone.received, strict=True)
        assert all(torch.equal(a, b) for got, was in pairs for a, b in zip(got, was, strict=True))
        states = watched.state_dict(), alone.state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
        network, other = watched.network, alone.network
        assert network.calls == other.calls == len(network.log) == len(other.log)
        assert torch.equal(network.features, other.features) and network.features.requires_grad
        assert network.seen["last"] is network.features
        assert network.generator.bit_generator.state == other.generator.bit_generator.state


class Once(DataLoader):
    """Counts how often it is asked for its batches."""

    asked = 0

    def __iter__(self) -> Any:
        self.asked += 1
        return super().__iter__()


def plain() -> Any:
    """A network of the same batches that keeps nothing."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    network.forward = lambda left, right: network[1](network[0](left + right))  # type: ignore[method-assign]
    return network


class Values(pl.Callback):
    """What was logged in each epoch under a name."""

    def __init__(self, name: str) -> None:
        self.name, self.found = name, []  # type: ignore[var-annotated]

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.found.append(trainer.callback_metrics[self.name].item())


class MixedUp(Project):
    """Mixes samples up on the way to the device, and would be spoilt by a deficit in place."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        left, right, target = batch
        return 0.5 * (left + left.flip(0)), right, target


def test_what_goes_by_in_the_first_epoch_is_measured_each_time():
    """Without the deficit that is open, as transferred, and from one pass an epoch."""
    project, window = MixedUp(plain), DeficitWindow(Blur(4), 0, 3)
    train, values = Once(Pairs(OfNumPy()), 8), Values("fisher/trace")
    project.configure_optimizers = lambda: torch.optim.SGD(project.parameters(), 0.0)  # type: ignore[method-assign]
    fit(project, [train], window, FisherMonitor(samples=12), values)
    assert train.asked == 3
    clean = loader(Pairs(OfNumPy()))
    batches = [MixedUp.on_after_batch_transfer(project, batch, 0) for batch in clean]
    left, right = (torch.cat([batch[view] for batch in batches])[:12] for view in (0, 1))
    expected, _ = fisher_trace(project.network, [left, right])
    assert values.found == pytest.approx([expected.item()] * 3, rel=1e-5)


@pytest.mark.parametrize("stop", [{"every_n_epochs": 1}, {"every_n_train_steps": 4}])
def test_a_run_that_goes_on_measures_what_it_would_have_measured(tmp_path: Path, stop: Any):
    """Stopped after an epoch, or in the middle of one; samples of one epoch, and all of it."""

    def run(epochs: int, *callbacks: Any, **settings: Any) -> list[float]:
        values = Values("fisher/trace"), Values("information/both")
        both = FisherMonitor(samples=12), UsableInformationMonitor(split="train")
        fit(Project(plain), [loader(Pairs(OfNumPy()))], *both, *callbacks, *values, **settings)
        return [value for one in values for value in one.found[-1:]]

    whole = run(3)
    keeps = pl.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1, filename="{step}", **stop)
    assert run(3, keeps, enable_checkpointing=True) == whole
    paths = sorted(tmp_path.iterdir())
    assert len(paths) >= 2
    saved = [torch.load(path) for path in paths]
    assert all(len(one["critical_periods_kept_batches"]["parts"][0]) == 3 for one in saved)
    for path in paths[:2]:
        project = Project(plain)
        project.load_state_dict(saved[-1]["state_dict"])
        values = Values("fisher/trace")
        fit(project, [loader(Pairs())], FisherMonitor(samples=12), values, ckpt_path=path)
        kept = saved[0]["critical_periods_kept_batches"]["parts"][0]
        left, right = (torch.cat([batch[view] for batch in kept])[:12] for view in (0, 1))
        assert values.found[-1] == pytest.approx(
            fisher_trace(project.network, [left, right])[0].item(), rel=1e-5
        )
