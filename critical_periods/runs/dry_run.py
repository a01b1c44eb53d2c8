"""The dry run: everything of a run but the training, so that mistakes in it are found first."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng

from critical_periods.callbacks.monitors.monitor import Monitor
from critical_periods.callbacks.windows.deficit_window import DeficitWindow
from critical_periods.core.internals import connect
from critical_periods.core.trainer import callbacks_of
from critical_periods.data.example import two_samples

# The settings of the trainer that callbacks compare themselves with.
_SETTINGS = (
    "accumulate_grad_batches", "callbacks", "check_val_every_n_epoch", "fast_dev_run",
    "limit_train_batches", "limit_val_batches", "max_epochs", "max_steps", "max_time",
    "reload_dataloaders_every_n_epochs", "val_check_interval",
)  # fmt: skip


def dry_run(
    settings: Mapping[str, Any], model: pl.LightningModule, data: Any
) -> list[torch.optim.Optimizer]:
    """Validates a run of this package's classes, with a quiet trainer on the CPU.

    Args:
        settings: of the trainer that will train.
        model: the task.
        data: the DataModule.

    Returns:
        The optimisers that the run will have.

    Raises:
        UserError: something does not fit.
    """
    log = logging.getLogger("pytorch_lightning")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), isolate_rng():
            trainer = pl.Trainer(
                accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False,
                **{name: settings[name] for name in _SETTINGS},
            )  # fmt: skip
            try:
                validate_run(trainer, model, data)
                return trainer.optimizers
            finally:
                for callback in callbacks_of(trainer):
                    if is_ours(callback):
                        callback.teardown(trainer, model, "fit")
                model.trainer = None
    finally:
        log.setLevel(level)


def validate_run(trainer: pl.Trainer, model: pl.LightningModule, data: Any) -> None:
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
