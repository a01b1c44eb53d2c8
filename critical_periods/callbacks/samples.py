"""Samples of a project's own data, taken without disturbing its training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch

from critical_periods.batch import Batch, find
from critical_periods.errors import UserError


def example_batch(trainer: pl.Trainer) -> Batch | None:
    """Two clean training samples of a DataModule that can give them; None in other projects."""
    # Every process takes both: there may be more processes than samples.
    loader = _measurement_loader(trainer, "train", 2, shared=True)
    return None if loader is None else _to_device(trainer, next(iter(loader)))


def two_samples(data: Any, device: torch.device) -> Batch:
    """Two clean training samples of a DataModule that can give them, without a Trainer."""
    draw = next(iter(data.measurement_loader("train", 2, shared=True)))
    images = data.transfer_batch_to_device(draw, device, 0)
    batch: Batch = data.on_after_batch_transfer(images, 0)
    return batch


def measurement_batches(
    trainer: pl.Trainer, split: str, samples: int | None, shared: bool = False
) -> Iterator[Batch]:
    """Batches to measure on, on the device, with the number of samples stated.

    A DataModule with a ``measurement_loader`` gives clean samples of any split. Other projects
    give what their own loader of the split yields, so that ``train`` is as augmented as they
    train on it.

    Args:
        trainer: in training.
        split: ``train``, ``val`` or ``test``.
        samples: how many in all processes together; all by default.
        shared: whether every process gets all of them; by default each its share.

    Raises:
        UserError: the project has no loader for the split.
    """
    loader = _measurement_loader(trainer, split, samples, shared)
    if loader is not None:
        for batch in loader:
            yield _to_device(trainer, batch)
        return
    share = samples
    if samples is not None and not shared:
        share = -(-(samples - trainer.global_rank) // trainer.world_size)
    taken = 0
    stranger = _stranger_loader(trainer, split)
    with _undisturbed(stranger):
        for raw in stranger:
            # Lightning converts the numbers to the precision of the run before it moves a batch.
            batch, _ = find(_to_device(trainer, trainer.precision_plugin.convert_input(raw)))
            kept = Batch(*(part[: None if share is None else share - taken] for part in batch))
            taken += len(kept.index)
            if len(kept.index):
                yield kept
            if share is not None and taken >= share:
                return


@contextmanager
def _undisturbed(loader: Any) -> Iterator[None]:
    """Gives the loader's own random generators their state back, so that no order changes."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = [loader, getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None)]
    found = [getattr(owner, "generator", None) for owner in owners]
    generators = {id(one): one for one in found if isinstance(one, torch.Generator)}
    states = [(one, one.get_state()) for one in generators.values()]
    try:
        yield
    finally:
        for one, state in states:
            one.set_state(state)


def shared_samples(trainer: pl.Trainer, split: str, samples: int) -> list[torch.Tensor]:
    """The same clean samples in every process: one tensor [samples, C, H, W] a view."""
    batches = [batch.views for batch in measurement_batches(trainer, split, samples, shared=True)]
    views = torch.cat(batches)[:samples]
    # Strangers' loaders give every process other samples.
    views = trainer.strategy.broadcast(views)
    return list(views.to(trainer.strategy.root_device).unbind(1))


def look_for_split(trainer: pl.Trainer, split: str) -> None:
    """Says before training that there will be nothing to measure on.

    Raises:
        UserError: the project has no loader for the split.
    """
    if not hasattr(trainer.datamodule, "measurement_loader"):  # type: ignore[attr-defined]
        _stranger_loader(trainer, split)


def _measurement_loader(
    trainer: pl.Trainer, split: str, samples: int | None, shared: bool = False
) -> Iterable[Any] | None:
    make = getattr(trainer.datamodule, "measurement_loader", None)  # type: ignore[attr-defined]
    return None if make is None else make(split, samples, shared)


def _stranger_loader(trainer: pl.Trainer, split: str) -> Iterable[Any]:
    if split == "val" and trainer.val_dataloaders is None and trainer.enable_validation:
        # The first validation may be epochs away, or there is none at all.
        trainer.fit_loop.epoch_loop.val_loop.setup_data()
    loader = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}.get(split)
    if isinstance(loader, (list, tuple)) and len(loader) == 1:
        loader = loader[0]
    if loader is None or isinstance(loader, (list, tuple, Mapping)):
        raise UserError(
            f"split={split!r} has no single data loader in this project to measure on; choose "
            "split='train' or 'val' with one loader, or use a DataModule of critical_periods."
        )
    return loader


def _to_device(trainer: pl.Trainer, batch: Any) -> Any:
    return trainer.strategy.batch_to_device(batch)
