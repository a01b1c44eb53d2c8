"""Batches of a DataModule as Lightning would make them, for tests."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from pytorch_lightning.plugins import Precision
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.data.batch_stage import BatchStage
from critical_periods.data.epochs import EpochLoader


def place(data: BatchStage, rank: int, world_size: int, validating: bool = False) -> None:
    """Lets a DataModule believe that it is one of several processes, or in validation."""
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank,
        world_size=world_size,
        validating=validating,
        precision_plugin=Precision(),
        fit_loop=SimpleNamespace(_loaded_from_state_dict=False),
        lightning_module=None,
    )


def batches(data: BatchStage, loader: EpochLoader, epoch: int = 0) -> list[Batch]:
    """All batches of an epoch."""
    loader.sampler.set_epoch(epoch)
    moved = [data.transfer_batch_to_device(draw, torch.device("cpu"), 0) for draw in loader]
    return [data.on_after_batch_transfer(batch, 0) for batch in moved]


def joined(parts: list[Batch]) -> Batch:
    """Batches as one."""
    return Batch(*(torch.cat(fields) for fields in zip(*parts, strict=True)))


def by_index(batch: Batch) -> Tensor:
    """The views in the order of the data set."""
    return batch.views[batch.index.argsort()]


def training(data: BatchStage, epoch: int = 0) -> Batch:
    """An epoch of training as one batch."""
    return joined(batches(data, data.train_dataloader(), epoch))


def evaluated(data: BatchStage, split: str = "test") -> Batch:
    """A split as it is evaluated, as one batch."""
    return joined(batches(data, getattr(data, f"{split}_dataloader")()))


def ridge(train: Batch, test: Batch, features: Callable[[Tensor], Tensor], penalty: float) -> float:
    """Test accuracy of ridge regression on features [N, P] of the views [N, V, H, W]."""

    def inputs(batch: Batch) -> Tensor:
        return torch.nn.functional.pad(features(batch.views[:, :, 0]), (0, 1), value=1.0)

    x, y = inputs(train), torch.nn.functional.one_hot(train.target).float()
    weight = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1]), x.T @ y)
    return (inputs(test) @ weight).argmax(1).eq(test.target).double().mean().item()


def measured(data: BatchStage, split: str, samples: int | None = None, **settings: Any) -> Batch:
    """Samples to measure on, as one batch."""
    return joined(batches(data, data.measurement_loader(split, samples, **settings)))
