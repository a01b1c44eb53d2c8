"""What of a Trainer and its callbacks Lightning does not declare."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl

from critical_periods.core.trainer import val_check_interval


def in_precision(trainer: pl.Trainer | None, batch: Any) -> Any:
    """A batch in half or double precision, as the Trainer's plugin makes of what a loader yields.

    Lightning converts the loader's own batches before they are moved to the device. The loaders of
    this package yield indices, so their batches are converted when they are made.
    """
    return batch if trainer is None else trainer.precision_plugin.convert_input(batch)


def default_dtype(trainer: pl.Trainer | None) -> AbstractContextManager[Any]:
    """The default dtype of a forward pass in a Trainer's precision, without autocast.

    Monitors run a network outside of its steps. One that is double or half as a whole
    (``64-true``, ``bf16-true``) may make new tensors, as recurrent networks do, which have to be
    of its kind. In mixed precision a measurement is of the float32 weights.
    """
    plugin = None if trainer is None else trainer.precision_plugin
    if plugin is None or not str(getattr(plugin, "precision", "")).endswith("-true"):
        return nullcontext()
    return plugin.forward_context()


def stops_before_monitors(early_stopping: Any, trainer: pl.Trainer) -> bool:
    """Whether an EarlyStopping checks as training epochs end, where other callbacks go before it.

    By default Lightning decides so when training begins: where validation runs once an epoch. A
    monitor that measures the last epoch would not know then that it is the last.
    """
    if (chosen := early_stopping._check_on_train_epoch_end) is not None:
        return bool(chosen)
    return val_check_interval(trainer) == 1.0 and trainer.check_val_every_n_epoch == 1


def rate_attributes(finder: Any) -> list[str]:
    """Where a LearningRateFinder looks for a model's learning rate: in one of these attributes."""
    return [finder._attr_name] if finder._attr_name else ["lr", "learning_rate"]


def milestones(scheduler: Any) -> list[int]:
    """Epochs at which a scheduler changes, in order: MultiStepLR's, or SequentialLR's.

    Milestones that no epoch reaches are refused before training.
    """
    return sorted(getattr(scheduler, "milestones", getattr(scheduler, "_milestones", ())))


def scale_rates(trainer: pl.Trainer, factor: float) -> None:
    """Multiplies the learning rates, and those that schedulers begin from, whichever they wrap."""
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            for name in ("lr", "initial_lr", "max_lr", "min_lr"):
                if name in group:
                    group[name] = group[name] * factor
    schedulers: list[Any] = [one.scheduler for one in trainer.lr_scheduler_configs]
    while schedulers:
        scheduler = schedulers.pop()
        schedulers += getattr(scheduler, "_schedulers", [])
        if hasattr(scheduler, "base_lrs"):
            scheduler.base_lrs = [rate * factor for rate in scheduler.base_lrs]


def synchronises_batch_norm(trainer: Any) -> bool:
    """Whether the processes of a Trainer share the statistics of batch norm."""
    return getattr(trainer.strategy, "_layer_sync", None) is not None


def connect(trainer: Any, model: pl.LightningModule | None, datamodule: Any) -> None:
    """Attaches data and a model to a Trainer and makes the optimisers, without training.

    The dry run of a config needs a Trainer whose callbacks find what they will find in training.
    The DataModule is set up already; the model, unless it is None, is set up here.
    """
    trainer.datamodule = datamodule
    if model is not None:
        model.trainer = trainer
        model.setup("fit")
        trainer.strategy.connect(model)
        trainer.strategy.setup_optimizers(trainer)
