"""Samples of anybody's data, without training noticing that they were taken."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from small_runs import quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

from critical_periods.callbacks import DeficitWindow
from critical_periods.callbacks.samples import example_batch, measurement_batches, shared_samples
from critical_periods.core.errors import UserError
from critical_periods.data import StereoDigitsDataModule
from critical_periods.deficits import Occlusion

IMAGES = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(20)


def trainer_of(
    train: Any = None, val: Any = None, rank: int = 0, world_size: int = 1, datamodule: Any = None
) -> Any:
    """As much of a Trainer as samples are taken from."""
    strategy = SingleDeviceStrategy("cpu")
    trainer = SimpleNamespace(
        train_dataloader=train,
        val_dataloaders=val,
        enable_validation=val is not None,
        num_training_batches=math.inf,
        num_val_batches=[math.inf],
        training=True,
        lightning_module=pl.LightningModule(),
        datamodule=datamodule,
        strategy=strategy,
        precision_plugin=strategy.precision_plugin,
        global_rank=rank,
        world_size=world_size,
    )
    if datamodule is not None:
        datamodule.setup()
        datamodule.trainer = trainer

        def batch_to_device(batch: Any) -> Any:
            moved = datamodule.transfer_batch_to_device(batch, torch.device("cpu"), 0)
            return datamodule.on_after_batch_transfer(moved, 0)

        strategy.batch_to_device = batch_to_device  # type: ignore[method-assign, assignment]
    return trainer


# Examples.


def digits(rank: int, world_size: int) -> Any:
    return trainer_of(rank=rank, world_size=world_size, datamodule=StereoDigitsDataModule())


@pytest.mark.parametrize("world_size", [1, 3, 64])
def test_an_example_however_many_processes_there_are(world_size):
    first, last = (
        example_batch(digits(*place)) for place in ((0, 1), (world_size - 1, world_size))
    )
    assert first is not None and first.views.shape == (2, 2, 1, 16, 16)
    assert last is not None and torch.equal(last.views, first.views)
    # None of a third party's stream.
    assert example_batch(trainer_of(plain())) is None


class Keyed(Dataset):
    """Indexed by anything but whole numbers."""

    def __getitem__(self, key: Any) -> tuple[Tensor, Tensor]:
        anchor, _ = key
        return IMAGES[anchor], TARGET[anchor]


class Slices:
    def __iter__(self) -> Iterator[Any]:
        return iter([(IMAGES[:4], TARGET[:4]), (IMAGES[4:8], TARGET[4:8])])


class Once:
    """Batches of four samples that are gone when they have been read."""

    def __init__(self, samples: Iterable[tuple[Tensor, Tensor]]) -> None:
        self.samples = iter(samples)

    def __iter__(self) -> Iterator[Any]:
        while part := list(islice(self.samples, 4)):
            yield [torch.stack(tensors) for tensors in zip(*part, strict=True)]


def plain(**settings: Any) -> DataLoader:
    return DataLoader(TensorDataset(IMAGES, TARGET), 4, **settings)


LOADERS: dict[str, Any] = {
    "map": plain,
    "shuffled": lambda: plain(shuffle=True),
    "shuffled by a generator": lambda: plain(shuffle=True, generator=torch.Generator()),
    "keyed": lambda: DataLoader(Keyed(), batch_sampler=[[(0, 1), (2, 3)], [(4, 5), (6, 7)]]),
    "no DataLoader": Slices,
    "a stream that can be read but once": lambda: Once(zip(IMAGES, TARGET, strict=True)),
}


class Module(pl.LightningModule):
    """Anybody's, with draws of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 20)
        self.seen: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen.append(batch[1])
        return nn.functional.cross_entropy(
            self.head(nn.functional.dropout(batch[0].flatten(1), 0.5)), batch[1]
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("kind", LOADERS)
def test_a_window_that_never_opens_changes_no_bit(kind):
    def fit(*callbacks: Any) -> Module:
        pl.seed_everything(1, verbose=False)
        module = Module()
        quiet_trainer(*callbacks, max_epochs=2).fit(module, LOADERS[kind]())
        return module

    plain_run, watched = fit(), fit(DeficitWindow(Occlusion(), onset=1, removal=1))
    assert len(plain_run.seen) == len(watched.seen) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain_run.seen, watched.seen, strict=True))
    assert torch.equal(plain_run.head.weight, watched.head.weight)


# Samples to measure on.


@pytest.mark.parametrize(
    ("samples", "world_size"),
    [(1, 3), (7, 1), (7, 2), (8, 2), (20, 3), (50, 2), (None, 1), (None, 3)],
)
def test_third_parties_give_as_many_samples_as_asked_for(samples, world_size):
    counts, everything = [], []
    for rank in range(world_size):
        part = torch.arange(rank, 20, world_size)  # as a distributed sampler would
        loader = DataLoader(TensorDataset(IMAGES[part], TARGET[part]), 4)
        trainer = trainer_of(val=loader, rank=rank, world_size=world_size)
        batches = list(measurement_batches(trainer, "val", samples))
        assert all(len(batch.index) for batch in batches)
        counts.append(sum(len(batch.target) for batch in batches))
        for batch in batches:
            everything += batch.target.tolist()
            assert torch.equal(batch.views[:, 0], IMAGES[batch.target])
    assert len(set(everything)) == len(everything) == min(samples or 20, 20)
    assert max(counts) - min(counts) <= 1
    shared = list(measurement_batches(trainer_of(val=[plain()], rank=1), "val", samples, True))
    assert sum(len(batch.target) for batch in shared) == min(samples or 20, 20)


@pytest.mark.parametrize(
    "settings",
    [
        {"shuffle": True, "generator": torch.Generator()},
        {"sampler": RandomSampler(range(20), generator=torch.Generator())},
    ],
)
@pytest.mark.parametrize("samples", [3, None])
def test_measuring_leaves_the_order_of_the_next_epoch_alone(settings, samples):
    def epochs(measures: bool) -> list[list[int]]:
        loader, orders = plain(**settings), []
        (loader.sampler.generator or loader.generator).manual_seed(4)
        for _ in range(3):
            orders.append([place for _, target in loader for place in target.tolist()])
            if measures:
                list(measurement_batches(trainer_of(loader), "train", samples))
        return orders

    assert epochs(measures=True) == epochs(measures=False)


def test_shared_samples_are_one_batch():
    one, other = (shared_samples(digits(rank, 2), "val", 37) for rank in range(2))
    assert one.views.shape == (37, 2, 1, 16, 16)
    assert torch.equal(one.views, other.views) and torch.equal(one.target, other.target)
    batch = shared_samples(trainer_of(val=plain()), "val", 7)
    assert torch.equal(batch.views[:, 0], IMAGES[:7])


def test_splits_that_third_parties_do_not_have():
    for split, val in (("val", None), ("test", None), ("train", None), ("val", [plain(), plain()])):
        with pytest.raises(UserError, match=f"split='{split}' has no single data loader"):
            list(measurement_batches(trainer_of(val=val), split, 3))
