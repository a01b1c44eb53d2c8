"""Samples of a project's own data, taken without disturbing its training."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DistributedSampler

from critical_periods.core.batch import Batch, find
from critical_periods.core.errors import UserError


def example_batch(trainer: pl.Trainer, split: str = "train") -> Batch | None:
    """Two clean samples of a split; None of a stranger's training, which may be a stream."""
    if split == "train" and not _gives_clean_samples(trainer):
        return None
    # Every process takes both: there may be more processes than samples.
    with closing(measurement_batches(trainer, split, 2, shared=True)) as batches, isolate_rng():
        return next(batches, None)


def measurement_batches(
    trainer: pl.Trainer, split: str, samples: int | None, shared: bool = False
) -> Generator[Batch, None, None]:
    """Batches to measure on, on the device, with the number of samples stated.

    A DataModule with a ``measurement_loader`` gives clean samples of any split. Other projects
    give what their own loader of the split yields, so that ``train`` is as augmented as they
    train on it, and no more batches than they train or validate on.

    Args:
        trainer: in training.
        split: ``train``, ``val`` or ``test``.
        samples: how many in all processes together; all by default.
        shared: whether every process gets all of them (of a stranger's loader, all that it has for
            this process); by default each its share.

    Raises:
        UserError: the project has no loader for the split.
    """
    if _gives_clean_samples(trainer):
        make = trainer.datamodule.measurement_loader  # type: ignore[attr-defined]
        for batch in make(split, samples, shared):
            yield trainer.strategy.batch_to_device(batch)
        return
    stranger = _stranger_loader(trainer, split)
    share = _own_samples(stranger)
    if samples is not None:
        # Of what is dealt out to all processes one by one.
        fair = -(-(samples - trainer.global_rank) // trainer.world_size)
        share = min(share, samples if shared else fair)
    taken = 0
    with _undisturbed(stranger) as loader:
        # No more than Lightning takes itself, of an endless stream, say.
        for raw in islice(loader, _limit(trainer, split)):
            batch, _ = find(_transferred(trainer, raw, split))
            kept = Batch(*(part[: int(min(share - taken, len(part)))] for part in batch))
            taken += len(kept.index)
            if len(kept.index):
                yield kept
            if taken >= share:
                return


def _transferred(trainer: pl.Trainer, raw: Any, split: str) -> Any:
    """A batch on the device, by all that Lightning does to one of this split."""
    was_training = trainer.training
    if split == "val":
        # The project may augment in training alone.
        trainer.validating = True
    try:
        raw = trainer.precision_plugin.convert_input(raw)
        raw = trainer.lightning_module._on_before_batch_transfer(raw, dataloader_idx=0)
        return trainer.strategy.batch_to_device(raw)
    finally:
        if was_training:
            trainer.training = True


def _own_samples(loader: Any) -> float:
    """How many samples of its own a process has; others share out what does not divide."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last:
        return math.inf
    # Those after them are the first ones again.
    total = len(sampler.dataset)  # type: ignore[arg-type]
    return -(-(total - sampler.rank) // sampler.num_replicas)


def _limit(trainer: pl.Trainer, split: str) -> int | None:
    """The batches that Lightning takes itself; None where it takes all."""
    limits = trainer.num_val_batches if split == "val" else [trainer.num_training_batches]
    return int(limits[0]) if limits and math.isfinite(limits[0]) else None


@contextmanager
def _undisturbed(loader: Any) -> Iterator[Any]:
    """The loader with workers of its own, whose random generators get their state back.

    So no order changes, nor what training's own workers draw.
    """
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = [loader, batch_sampler]
    owners += [getattr(owner, "sampler", None) for owner in owners]
    found = [getattr(owner, "generator", None) for owner in owners]
    generators = {id(one): one for one in found if isinstance(one, torch.Generator)}
    states = [(one, one.get_state()) for one in generators.values()]
    if getattr(loader, "persistent_workers", False):
        loader = copy.copy(loader)
        loader._iterator = None
        # Past the loader's own __setattr__, which forbids it.
        object.__setattr__(loader, "persistent_workers", False)
    try:
        yield loader
    finally:
        for one, state in states:
            one.set_state(state)


def shared_samples(trainer: pl.Trainer, split: str, samples: int | None) -> Batch:
    """The same clean samples in every process, as one batch on the device; all by default."""
    found = list(measurement_batches(trainer, split, samples, shared=True))
    batch = Batch(*map(torch.cat, zip(*found, strict=True)))
    if trainer.world_size > 1 and not _gives_clean_samples(trainer):
        # Strangers' loaders give every process other samples, dealt out one by one.
        parts: list[list[Tensor]] = [[] for _ in range(trainer.world_size)]
        torch.distributed.all_gather_object(parts, [part.cpu() for part in batch])
        place = torch.cat([torch.arange(len(part[0])) for part in parts]).sort(stable=True).indices
        batch = Batch(*(torch.cat(each)[place] for each in zip(*parts, strict=True)))
    return Batch(*(part[:samples].to(trainer.strategy.root_device) for part in batch))


def look_for_split(trainer: pl.Trainer, split: str) -> None:
    """Says before training that there will be nothing to measure on.

    Raises:
        UserError: the project has no loader for the split.
    """
    if not _gives_clean_samples(trainer):
        _stranger_loader(trainer, split)


def _gives_clean_samples(trainer: pl.Trainer) -> bool:
    return hasattr(trainer.datamodule, "measurement_loader")  # type: ignore[attr-defined]


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
