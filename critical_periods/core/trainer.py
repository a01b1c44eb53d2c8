"""What callbacks and tasks ask of a Lightning Trainer, of either package of Lightning."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from critical_periods.core.errors import reason


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
        attempt(_log_media, media, loggers, trainer.current_epoch)


def _log_media(media: Callable[[Any], dict[str, Any]], loggers: list[Any], epoch: int) -> None:
    import wandb

    values = media(wandb)
    for logger in loggers:
        logger.experiment.log({**values, "epoch": epoch})


def attempt(call: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """What a call into Weights & Biases returns; ``None``, and a warning, where it fails.

    Its service is a process of its own, which may be killed or lose its disk. No training depends
    on it.
    """
    try:
        return call(*args, **settings)
    except Exception as error:
        warnings.warn(
            f"Weights & Biases has failed ({reason(error)}); the run goes on without it.",
            # Of this line, so that it is said once, whatever was called.
            stacklevel=1,
        )
        return None
