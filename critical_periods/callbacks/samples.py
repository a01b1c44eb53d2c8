"""Samples to measure on, taken from a project's own data without disturbing its training.

A DataModule of this package gives clean samples of any split by its ``measurement_loader``. In a
third party's project they come from the data loader of the split, as Lightning would take them.
"""

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

from critical_periods.core.batch import Batch, find, join
from critical_periods.core.errors import UserError
from critical_periods.core.internals import set_up_validation, transferred, with_own_workers
from critical_periods.core.project import Project
from critical_periods.core.trainer import datamodule_of


def measurement_batches(
    trainer: pl.Trainer,
    split: str,
    samples: int | None,
    shared: bool = False,
    project: Project | None = None,
    target_needed: bool = False,
) -> Generator[Batch, None, None]:
    """Batches to measure on, on the device; a UserError where there is no loader for the split.

    Other projects give what their own loader of the split yields, so that ``train`` is as augmented
    as they train on it, and no more batches than they train or validate on.

    Args:
        trainer: in training.
        split: ``train``, ``val`` or ``test``.
        samples: how many in all processes together; all by default.
        shared: whether every process gets all of them (of a third party's loader, all that it has
            for this process); by default each its share.
        project: where things are in a third party's batches.
        target_needed: whether batches without a target are refused.
    """
    if _has_clean_samples(trainer):
        for indices in datamodule_of(trainer).measurement_loader(split, samples, shared):
            yield trainer.strategy.batch_to_device(indices)
    else:
        where = (project, target_needed)
        yield from _third_party_batches(trainer, split, samples, shared, *where)


def shared_samples(
    trainer: pl.Trainer,
    split: str,
    samples: int | None,
    project: Project | None = None,
    target_needed: bool = False,
) -> Batch:
    """The same clean samples in every process, as one batch on the device; all by default."""
    where = (project, target_needed)
    batch = join(measurement_batches(trainer, split, samples, True, *where))
    if trainer.world_size > 1 and not _has_clean_samples(trainer):
        # A third party's loader deals out samples one by one: the first of each process come
        # first, then the second ones, …
        parts: list[Batch] = [batch] * trainer.world_size
        torch.distributed.all_gather_object(parts, batch.map(Tensor.cpu))
        places = torch.cat([torch.arange(len(part.index)) for part in parts])
        order = places.sort(stable=True).indices
        batch = join(parts).map(lambda part: part[order])
    return batch.map(lambda part: part[:samples].to(trainer.strategy.root_device))


def example_batch(
    trainer: pl.Trainer,
    split: str = "train",
    project: Project | None = None,
    target_needed: bool = False,
) -> Batch | None:
    """Two clean samples of a split, for a dry run before training.

    None of a third party's training split: it may be a stream, which can be read but once.
    """
    if split == "train" and not _has_clean_samples(trainer):
        return None
    # Every process takes both: there may be more processes than samples.
    batches = measurement_batches(trainer, split, 2, True, project, target_needed)
    with closing(batches), isolate_rng():
        return next(batches, None)


def validate_split(trainer: pl.Trainer, split: str) -> None:
    """Raises a UserError where a project has no loader for the split."""
    if not _has_clean_samples(trainer):
        _third_party_loader(trainer, split)


def _has_clean_samples(trainer: pl.Trainer) -> bool:
    return hasattr(datamodule_of(trainer), "measurement_loader")


def _third_party_batches(
    trainer: pl.Trainer,
    split: str,
    samples: int | None,
    shared: bool,
    project: Project | None,
    target_needed: bool,
) -> Iterator[Batch]:
    """As :func:`measurement_batches`, from the loader of the split."""
    loader = _third_party_loader(trainer, split)
    wanted = _distinct_samples(loader)
    if samples is not None:
        # Samples are dealt out to processes one by one: rank r takes r, r + world_size, …
        share = _number_dealt(samples, trainer.global_rank, trainer.world_size)
        wanted = min(wanted, samples if shared else share)
    taken = 0
    with _random_state_kept(loader):
        # An endless stream ends where Lightning stops taking batches of it.
        for raw in islice(with_own_workers(loader), _batch_limit(trainer, split)):
            moved = transferred(trainer, raw, validating=split == "val")
            batch, _ = find(moved, target_needed, project)
            batch = batch.first(int(min(wanted - taken, len(batch.index))))
            taken += len(batch.index)
            if len(batch.index):
                yield batch
            if taken >= wanted:
                return


def _third_party_loader(trainer: pl.Trainer, split: str) -> Iterable[Any]:
    if split == "val" and trainer.val_dataloaders is None and trainer.enable_validation:
        # The first validation may be epochs away, or there is none at all.
        set_up_validation(trainer)
    loader = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}.get(split)
    if isinstance(loader, (list, tuple)) and len(loader) == 1:
        loader = loader[0]
    if loader is None or isinstance(loader, (list, tuple, Mapping)):
        raise UserError(
            f"split={split!r} has no single data loader in this project to measure on; choose "
            "split='train' or 'val' with one loader, or use a DataModule of critical_periods."
        )
    return loader


def _distinct_samples(loader: Any) -> float:
    """How many samples a loader gives to this process, less those a DistributedSampler repeats."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last:
        return math.inf
    dataset: Any = sampler.dataset
    return _number_dealt(len(dataset), sampler.rank, sampler.num_replicas)


def _number_dealt(number: int, rank: int, world_size: int) -> int:
    """How many of ``number`` things a process gets that are dealt out one by one."""
    return math.ceil((number - rank) / world_size)


def _batch_limit(trainer: pl.Trainer, split: str) -> int | None:
    """How many batches Lightning takes of a split's loader; None where it takes all."""
    limits = trainer.num_val_batches if split == "val" else [trainer.num_training_batches]
    return int(limits[0]) if limits and math.isfinite(limits[0]) else None


@contextmanager
def _random_state_kept(loader: Any) -> Iterator[None]:
    """Gives a loader's random generators their state back, so that no later order changes."""
    owners = [loader, getattr(loader, "batch_sampler", None)]
    owners += [getattr(owner, "sampler", None) for owner in owners]
    found = [getattr(owner, "generator", None) for owner in owners]
    states = [(one, one.get_state()) for one in found if isinstance(one, torch.Generator)]
    try:
        yield
    finally:
        for one, state in states:
            one.set_state(state)
