"""The DataModule of this package that a window needs."""

from __future__ import annotations

import pytorch_lightning as pl

from critical_periods.core.errors import UserError
from critical_periods.core.trainer import datamodule_of
from critical_periods.data.images import ImageDataModule


def image_data(trainer: pl.Trainer, purpose: str) -> ImageDataModule:
    """The run's DataModule, where it is one of images of this package.

    Args:
        trainer: of the run.
        purpose: what is done with it, as the beginning of a message.

    Raises:
        UserError: the run has another DataModule, or none.
    """
    data = datamodule_of(trainer)
    if not isinstance(data, ImageDataModule):
        found = "data loaders alone" if data is None else type(data).__name__
        raise UserError(
            f"{purpose} a DataModule of critical_periods, but this run has {found}; use one of "
            "those."
        )
    return data
