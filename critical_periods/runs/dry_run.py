"""Everything of a run but the training: what would go wrong in it is found first."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from critical_periods.callbacks.monitors.monitor import Monitor
from critical_periods.callbacks.windows.deficit_window import DeficitWindow
from critical_periods.core.internals import connect
from critical_periods.core.trainer import callbacks_of
from critical_periods.data.example import two_samples


def rehearse(trainer: pl.Trainer, model: pl.LightningModule, data: Any) -> None:
    """Sets a run up as Lightning would, and tries its callbacks on two samples.

    Of the model and the callbacks, those of this package are tried: what others do in their
    ``setup`` is not known.

    Args:
        trainer: of a single device; it must not be the one that trains.
        model: the task.
        data: a DataModule with a ``measurement_loader``.

    Raises:
        UserError: something does not fit.
    """
    data.prepare_data()
    data.setup("fit")
    connect(trainer, model if is_ours(model) else None, data)
    example = two_samples(data, model.device)
    for callback in callbacks_of(trainer):
        if is_ours(callback):
            callback.setup(trainer, model, "fit")
            callback.on_fit_start(trainer, model)
        if isinstance(callback, DeficitWindow):
            callback.deficit.check(example)
        elif isinstance(callback, Monitor) and is_ours(model):
            callback.dry_run(model, example)


def is_ours(part: object) -> bool:
    """Whether a class is of this package, so that it is known what its ``setup`` does."""
    return type(part).__module__.startswith("critical_periods.")
