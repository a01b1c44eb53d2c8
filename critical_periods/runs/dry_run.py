"""The dry run: everything of a run but the training, so that mistakes in it are found first."""

import logging
import warnings
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.seed import isolate_rng

from critical_periods.callbacks.monitors.monitor import Monitor
from critical_periods.callbacks.remedies.remedy import Remedy
from critical_periods.callbacks.windows.deficit_window import DeficitWindow
from critical_periods.core.errors import UserError
from critical_periods.core.internals import connect
from critical_periods.core.trainer import (
    batches_of_epochs,
    callbacks_of,
    is_ours,
    val_check_interval,
)
from critical_periods.data.example import two_samples
from critical_periods.runs.lightning_callbacks import listed, validate_callbacks, validate_measures

# The settings of the trainer that callbacks are compared with, by themselves or by Lightning: all
# that say what a run does, and none of those that say where it does so and who is told.
_SETTINGS = (
    "accumulate_grad_batches", "barebones", "check_val_every_n_epoch", "default_root_dir",
    "enable_checkpointing", "enable_model_summary", "enable_progress_bar", "fast_dev_run",
    "gradient_clip_algorithm", "gradient_clip_val", "limit_test_batches", "limit_train_batches",
    "limit_val_batches", "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps",
    "num_sanity_val_steps", "overfit_batches", "reload_dataloaders_every_n_epochs",
    "val_check_interval",
)  # fmt: skip


def dry_run(
    settings: Mapping[str, Any], model: pl.LightningModule, data: Any
) -> list[torch.optim.Optimizer]:
    """Validates a run of this package's classes, with a quiet trainer on the CPU.

    ``settings`` are those of the trainer that will train; returned are the optimisers that the run
    will have.

    Raises:
        UserError: something does not fit.
    """
    log = logging.getLogger("pytorch_lightning")
    with ExitStack() as stack:
        stack.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        stack.enter_context(warnings.catch_warnings(action="ignore"))
        stack.enter_context(isolate_rng())
        validate_callbacks(listed(settings["callbacks"]), model)
        trainer = pl.Trainer(
            accelerator="cpu", devices=1, logger=False,
            # A list of its own, as Lightning adds to the one that it is given.
            callbacks=listed(settings["callbacks"]),
            **{name: settings[name] for name in _SETTINGS},
        )  # fmt: skip
        stack.callback(setattr, model, "trainer", None)
        for callback in filter(is_ours, reversed(callbacks_of(trainer))):
            stack.callback(callback.teardown, trainer, model, "fit")
        # In how many processes the run trains is known to Lightning alone, if it is not said.
        devices = settings["devices"]
        is_one = devices in (1, "1") or (settings["accelerator"], devices) == ("cpu", "auto")
        validate_run(trainer, model, data, starts=is_one and settings["num_nodes"] == 1)
        _validate_interval(trainer, data)
        return trainer.optimizers


def _validate_interval(trainer: pl.Trainer, data: Any) -> None:
    interval: Any = val_check_interval(trainer)
    counts_all = trainer.check_val_every_n_epoch is None or trainer.limit_val_batches == 0
    if isinstance(interval, float) or interval is None or counts_all or not hasattr(data, "epochs"):
        return
    if interval > (fewest := min(batches_of_epochs(trainer, data))):
        raise UserError(
            f"trainer.val_check_interval={interval} is more than the {fewest} batches of an epoch; "
            "set fewer, or trainer.check_val_every_n_epoch to null, to count through all epochs."
        )


def validate_run(
    trainer: pl.Trainer, model: pl.LightningModule, data: Any, starts: bool = True
) -> None:
    """Sets a run up as Lightning would, and tries its callbacks on two samples.

    Of the model and the callbacks, those of this package are tried: what others do in their
    ``setup`` is not known. The DataModule must have a ``measurement_loader``; the trainer is of a
    single device and not the one that trains. With ``starts``, it is in as many processes as that
    one, and the model tries how an epoch is shared by them.

    Raises:
        UserError: something does not fit.
    """
    data.prepare_data()
    data.setup("fit")
    connect(trainer, model if is_ours(model) else None, data)
    validate_measures(trainer, model)
    example = two_samples(data, model)
    for callback in callbacks_of(trainer):
        if is_ours(callback):
            callback.setup(trainer, model, "fit")
            callback.on_fit_start(trainer, model)
        if isinstance(callback, DeficitWindow):
            callback.deficit.check(example)
        elif isinstance(callback, Monitor) and is_ours(model):
            callback.dry_run(model, example)
        elif isinstance(callback, Remedy) and is_ours(model):
            callback.check(model, example)
    if starts and is_ours(model):
        model.on_fit_start()
