"""Samples to measure on, taken from a project's own data without disturbing its training.

A DataModule of this package gives clean samples of any split by its ``measurement_loader``. In a
third party's project, training batches are those that have gone by
(:class:`~critical_periods.callbacks.kept_batches.KeptBatches`): its training loader, sampler, data
set and transforms are never asked for more. Validation batches come from a copy of its loader, or,
where that cannot be copied, have gone by in validation, too.
"""

import inspect
import math
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import DistributedSampler

from critical_periods.callbacks.kept_batches import KeptBatches, kept_batches
from critical_periods.core.batch import Batch, join
from critical_periods.core.errors import UserError
from critical_periods.core.finding import find
from critical_periods.core.internals import separate, set_up_validation, transferred
from critical_periods.core.project import Project
from critical_periods.core.restoring import restored
from critical_periods.core.trainer import datamodule_of
from critical_periods.core.trees import mapped
from critical_periods.core.whole_batch import gather


def measurement_batches(
    trainer: pl.Trainer,
    split: str,
    samples: int | None,
    shared: bool = False,
    project: Project | None = None,
    target_needed: bool = False,
) -> Generator[Batch, None, None]:
    """Batches to measure on, on the device; a UserError where there is no loader for the split.

    Other projects give what their steps receive, so that ``train`` is as augmented as they train
    on it, and no more batches than they train or validate on.

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
        return
    wanted = _distinct_samples(_third_party_loader(trainer, split, project))
    if samples is not None:
        share = number_dealt(samples, trainer)
        wanted = min(wanted, samples if shared else share)
    taken = 0
    for raw in _raw_batches(trainer, split):
        batch, _ = find(raw, target_needed, project)
        batch = batch.first(int(min(wanted - taken, len(batch.index))))
        taken += len(batch.index)
        if len(batch.index):
            yield batch
        if taken >= wanted:
            return
    if not taken:
        raise UserError(
            f"split={split!r} has given no sample that could be measured: its data loader, perhaps "
            "a stream that was read before, has come to its end; give it samples, or choose "
            "another split."
        )


def part_of_whole(batch: Batch, trainer: pl.Trainer) -> tuple[list[int], int] | None:
    """How many samples each process has in its batch of :func:`measurement_batches`, and our rank.

    Every process has to ask. ``None`` in a third party's project, where some may have more batches.
    """
    if not _has_clean_samples(trainer) or not hasattr(datamodule_of(trainer), "place"):
        return None
    rank, processes = datamodule_of(trainer).place
    own = torch.tensor([len(batch.index)], device=trainer.strategy.root_device)
    return gather(own, [1] * processes).tolist(), rank


def shared_samples(
    trainer: pl.Trainer,
    split: str,
    samples: int | None,
    project: Project | None = None,
    target_needed: bool = False,
) -> Batch:
    """The same clean samples in every process, as one batch on the device; all by default."""
    where = (project, target_needed)
    batches = list(measurement_batches(trainer, split, samples, True, *where))
    check_one_shape(split, batches)
    batch = join(batches)
    if trainer.world_size > 1 and not _has_clean_samples(trainer):
        # A third party's loader deals out samples one by one: the first of each process come
        # first, then the second ones, …
        parts: list[Batch] = [batch] * trainer.world_size
        torch.distributed.all_gather_object(parts, batch.map(Tensor.cpu))
        places = torch.cat([torch.arange(len(part.index)) for part in parts])
        order = places.sort(stable=True).indices
        batch = join(parts).map(lambda part: part[order])
    return batch.map(lambda part: part[:samples].to(trainer.strategy.root_device))


def check_one_shape(split: str, batches: Iterable[Batch]) -> None:
    """Raises a UserError where samples that are to be one batch have different shapes."""
    shapes = {tuple(tuple(view.shape[1:]) for view in batch.inputs) for batch in batches}
    if len(shapes) > 1:
        shown = (" × ".join(str(list(shape)) for shape in each) for each in sorted(shapes)[:2])
        raise UserError(
            f"split={split!r} gives samples of different shapes, such as {' and '.join(shown)}, "
            "which are measured together here; choose another split, or give samples of one shape."
        )


def example_batch(
    trainer: pl.Trainer,
    split: str = "train",
    project: Project | None = None,
    target_needed: bool = False,
    one_shape: bool = False,
) -> Batch | None:
    """Clean samples of a split, two or more, for a dry run before training.

    They are the first batch of a third party's validation, whose second is looked at where all are
    to have ``one_shape``. None of its training split, or of one that cannot be drawn from without a
    trace.
    """
    if not _has_clean_samples(trainer) and (split == "train" or split in kept_batches(trainer)):
        return None
    # Every process takes both: there may be more processes than samples.
    samples = 2 if _has_clean_samples(trainer) else None
    batches = measurement_batches(trainer, split, samples, True, project, target_needed)
    with closing(batches), isolate_rng():
        example = next(batches, None)
        second = next(batches, None) if one_shape and not _has_clean_samples(trainer) else None
    check_one_shape(split, filter(None, (example, second)))
    return example


def prepare_split(trainer: pl.Trainer, split: str, project: Project | None = None) -> None:
    """Has the batches of a split kept where they can be had only as they go by.

    Raises:
        UserError: a project has no loader for the split, or takes its training batches itself.
    """
    if _has_clean_samples(trainer):
        return
    loader, module = _third_party_loader(trainer, split, project), trainer.lightning_module
    if split == "train":
        if "dataloader_iter" in inspect.signature(module.training_step).parameters:
            raise UserError(
                f"training_step of {type(module).__name__} takes dataloader_iter, so no batch goes "
                "by that could be measured; let it take batch, or choose split='val'."
            )
    elif separate(loader) is not None:
        return
    kept_batches(trainer).setdefault(split, KeptBatches())


def _has_clean_samples(trainer: pl.Trainer) -> bool:
    return hasattr(datamodule_of(trainer), "measurement_loader")


def _raw_batches(trainer: pl.Trainer, split: str) -> Iterator[Any]:
    """What a step of the split receives, batch by batch."""
    if split in kept_batches(trainer):
        for batch in kept_batches(trainer)[split].batches:
            yield mapped(batch, partial(Tensor.to, device=trainer.strategy.root_device))
        return
    loader = separate(_third_party_loader(trainer, split))
    # The hooks of the transfer are the project's own, too.
    with restored(trainer.lightning_module, datamodule_of(trainer)):
        # An endless stream ends where Lightning stops taking batches of it.
        for raw in islice(loader, _batch_limit(trainer, split)):
            yield transferred(trainer, raw, validating=split == "val")


def _third_party_loader(
    trainer: pl.Trainer, split: str, project: Project | None = None
) -> Iterable[Any]:
    if split == "val" and trainer.val_dataloaders is None and trainer.enable_validation:
        # The first validation may be epochs away, or there is none at all.
        set_up_validation(trainer)
    loader = {"train": trainer.train_dataloader, "val": trainer.val_dataloaders}.get(split)
    if isinstance(loader, (list, tuple)) and len(loader) == 1:
        loader = loader[0]
    several = isinstance(loader, (list, tuple, Mapping))
    # Of the training batches of several, a part may be named.
    is_named = split == "train" and project is not None and project.places is not None
    if loader is None or (several and not is_named):
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
    return math.ceil((len(dataset) - sampler.rank) / sampler.num_replicas)


def number_dealt(number: float, trainer: pl.Trainer) -> float:
    """How many of ``number`` samples this process gets, as they are dealt out one by one."""
    # Rank r takes r, r + world_size, …
    share = (number - trainer.global_rank) / trainer.world_size
    return math.ceil(share) if number < math.inf else number


def _batch_limit(trainer: pl.Trainer, split: str) -> int | None:
    """How many batches Lightning takes of a split's loader; None where it takes all."""
    limits = trainer.num_val_batches if split == "val" else [trainer.num_training_batches]
    return int(limits[0]) if limits and math.isfinite(limits[0]) else None
