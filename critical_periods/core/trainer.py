"""What callbacks and tasks ask of a Lightning Trainer, of either package of Lightning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl


def callbacks_of(trainer: Any) -> list[Any]:
    """A Trainer's callbacks, an attribute that Lightning does not declare to type checkers."""
    return trainer.callbacks


def datamodule_of(trainer: Any) -> Any:
    """A Trainer's DataModule, likewise undeclared; None where it was given data loaders alone."""
    return trainer.datamodule


def trainer_of(module: pl.LightningModule) -> pl.Trainer | None:
    """The Trainer that a module is attached to, if there is one.

    Example:
        >>> trainer_of(pl.LightningModule()) is None
        True
    """
    try:
        return module.trainer
    except RuntimeError:  # as Lightning says that there is none
        return None


def ends_before(trainer: pl.Trainer, epochs: int) -> bool:
    """Whether a run has fewer epochs than these.

    A training that is but a part of a run (a study's segment) has a callback with an attribute
    ``run_epochs``, which says how many epochs the whole run has.
    """
    # A run for trial has one epoch, whatever is set.
    if getattr(trainer, "fast_dev_run", False):
        return False
    lengths = [getattr(one, "run_epochs", None) for one in callbacks_of(trainer)]
    last = next((length for length in lengths if length is not None), trainer.max_epochs)
    return last is not None and 0 <= last < epochs


def val_check_interval(trainer: Any) -> int | float | None:
    """A Trainer's setting; ``None`` where it is a time, for which the Trainer has no attribute."""
    return getattr(trainer, "val_check_interval", None)


def processes_of(trainer: Any) -> int:
    """In how many processes a Trainer trains, from the start; ``world_size`` knows it later."""
    return trainer.num_devices * trainer.num_nodes


def batches_of_epochs(trainer: Any, data: Any) -> list[int]:
    """How many batches the training epochs have, one number for each length of epochs.

    ``data`` is a DataModule of this package that has been set up.
    """
    samplers = data.epochs(processes_of(trainer))
    return [limited(len(sampler), trainer.limit_train_batches) for sampler in samplers]


def limited(batches: int, limit: float) -> int:
    """How many of the batches of an epoch a Trainer's limit leaves: a number of them or a share.

    Example:
        >>> limited(10, 3), limited(10, 0.5), limited(10, 1.0), limited(10, 20)
        (3, 5, 10, 10)
    """
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def results_folder(trainer: pl.Trainer, name: str) -> Path:
    """A folder for files of a run: ``name`` in the logger's folder, or in the Trainer's without.

    Every process has to ask, as all get the path from the first one; only one should write.
    """
    return Path(trainer.log_dir or trainer.default_root_dir) / name


def log_to_wandb(trainer: pl.Trainer, media: Callable[[Any], dict[str, Any]]) -> None:
    """Logs pictures or histograms of this epoch to Weights & Biases, where a run logs there.

    ``media`` makes them, by their keys, with the module ``wandb``, which is loaded only here.
    """
    # By name, so that the loggers of both packages of Lightning are found.
    loggers: list[Any] = [one for one in trainer.loggers if type(one).__name__ == "WandbLogger"]
    if loggers:
        import wandb

        values = media(wandb)
        for logger in loggers:
            logger.experiment.log({**values, "epoch": trainer.current_epoch})
