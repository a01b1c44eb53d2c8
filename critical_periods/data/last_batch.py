"""Epochs that end with a single sample, which not every network can train on."""

import inspect
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch.nn.parameter import is_lazy

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError, reason
from critical_periods.core.internals import synchronises_batch_norm
from critical_periods.core.restoring import restored
from critical_periods.core.trainer import limited
from critical_periods.data.example import two_samples


def validate_last_batch(
    name: str, trainer: Any, data: Any, processes: int, fails: Callable[[], Exception | None]
) -> None:
    """Refuses epochs that end with a single sample, which the network cannot train on.

    Batch norm of a layer without pixels has no variance of one sample. Other networks train on it
    as ever. Data without ``epochs`` (:meth:`.BatchStage.epochs`) is not known.

    Args:
        name: of what trains.
        trainer: that it trains with.
        data: that has been set up.
        processes: that training has; batch norm that is synchronised counts the samples of all.
        fails: gives what one sample makes it say, if two do not.

    Raises:
        UserError: an epoch, on all samples or in a SubsetWindow, ends so.
    """
    if not hasattr(data, "epochs") or (processes > 1 and synchronises_batch_norm(trainer)):
        return
    for sampler in data.epochs(processes):
        count = limited(len(sampler), trainer.limit_train_batches)
        has_last = count == len(sampler) or sampler.batch_size == 1
        if sampler.last_size > 1 or count == 0 or not has_last:
            continue
        if error := fails():
            samples, size = len(sampler.index), sampler.batch_size
            shared = f" a process, shared by {processes} processes" if processes > 1 else ""
            raise UserError(
                f"{name} cannot train on a batch of one sample ({reason(error)}), but an epoch of "
                f"{samples} samples in batches of {size}{shared} ends with one; choose another "
                "batch_size, or other numbers of samples (limit_train, val_split, share of "
                "SubsetWindow)."
            )
        return


def fails_in_step(module: pl.LightningModule, data: Any) -> Exception | None:
    """What the step of a third party's module says of one sample, if it does take two.

    Steps that move optimisers, and modules that take their shapes from the first batch, are not
    tried.
    """
    if not module.automatic_optimization or any(map(is_lazy, module.parameters())):
        return None
    places = len(inspect.signature(module.training_step).parameters)
    with restored(module):
        vars(module).update(dict.fromkeys(("log", "log_dict"), lambda *args, **kwargs: None))
        return refusal_of_one_sample(
            module, data, lambda batch: module.training_step(*[batch, 0][:places])
        )


def refusal_of_one_sample(
    module: pl.LightningModule, data: Any, call: Callable[[Batch], Any]
) -> Exception | None:
    """What a call that a module makes says of a batch of one sample, if it does take two."""
    # Twice the same one where batches have one.
    batch = two_samples(data, module).map(lambda part: part[[0, -1]])
    with isolate_rng(), torch.no_grad():
        for samples in (2, 1):
            try:
                call(batch.first(samples))
            except Exception as error:  # networks say so in many ways
                return error if samples == 1 else None
    return None
