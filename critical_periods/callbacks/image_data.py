"""The DataModule of this package that some windows and monitors need."""

import pytorch_lightning as pl

from critical_periods.core.errors import UserError
from critical_periods.core.trainer import datamodule_of, val_check_interval
from critical_periods.data.images import ImageDataModule


def image_data(trainer: pl.Trainer, purpose: str) -> ImageDataModule:
    """The run's ImageDataModule; if it is none, a UserError that begins with the purpose."""
    data = datamodule_of(trainer)
    if not isinstance(data, ImageDataModule):
        found = "data loaders alone" if data is None else type(data).__name__
        wanted = f"{purpose} a DataModule of critical_periods"
        raise UserError(f"{wanted}, but this run has {found}; use one of those.")
    return data


def validate_interval(trainer: pl.Trainer, batches: int, epoch: str) -> None:
    """Raises a UserError where an epoch, as a sentence calls it, has no batch to validate after."""
    interval = val_check_interval(trainer)
    per_epoch = trainer.check_val_every_n_epoch is not None
    if per_epoch and isinstance(interval, int) and interval > batches:
        raise UserError(
            f"val_check_interval={interval} is more than the {batches} batches of an epoch on "
            f"{epoch}; choose at most {batches}, or 1.0."
        )
