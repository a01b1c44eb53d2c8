"""What callbacks and tasks ask of a Lightning Trainer, of either package of Lightning."""

import math
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import SLURMEnvironment

from critical_periods.core.errors import UserError, reason

Unit = Literal["epoch", "step"]
"""What training is counted in; a step is one of ``trainer.global_step``."""


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


def is_a(name: str, thing: object) -> bool:
    """Whether a thing is of a class of Lightning, of either package, or of one derived from it.

    Example:
        >>> is_a("Logger", pl.loggers.CSVLogger("logs")), is_a("Logger", pl.LightningModule())
        (True, False)
    """
    return any(base.__name__ == name for base in type(thing).__mro__)


def is_ours(part: object) -> bool:
    """Whether a thing is of a class of this package, of which it is known what its methods do."""
    return type(part).__module__.startswith("critical_periods.")


def ends_before(trainer: pl.Trainer, epochs: int) -> bool:
    """Whether a run has fewer epochs than these.

    A training that is but a part of a run (a study's segment) has a callback with an attribute
    ``run_epochs``, which says how many epochs the whole run has.
    """
    return _run_length(trainer, "epoch", math.inf)[0] < epochs


def validate_end(
    trainer: pl.Trainer, what: str, end: int, unit: Unit = "epoch", batches: float = math.inf
) -> None:
    """Raises a UserError where a run has fewer epochs or steps than ``end``.

    Args:
        trainer: of the run.
        what: is said to need them, with its verb: ``epoch=5 of LearningRateRestart lies``.
        end: how many are needed.
        unit: of ``end``.
        batches: of a training epoch, where they are known: by them, steps end epochs and epochs
            steps.
    """
    length, setting = _run_length(trainer, unit, batches)
    if length < end:
        raise UserError(f"{what} beyond the last {unit} of training: {setting}.")


def may_not_end_an_epoch(trainer: pl.Trainer) -> bool:
    """Whether nothing says that a first epoch ends: the data has no length, the run no epochs."""
    is_bounded = math.isfinite(_epochs(trainer)) and trainer.max_steps < 0
    return math.isinf(trainer.num_training_batches) and not is_bounded


def is_whole(trainer: pl.Trainer) -> bool:
    """Whether a training is neither for trial nor a part of a run, as in :func:`ends_before`."""
    return not getattr(trainer, "fast_dev_run", False) and _run_epochs(trainer) is None


def _run_epochs(trainer: pl.Trainer) -> int | None:
    lengths = [getattr(one, "run_epochs", None) for one in callbacks_of(trainer)]
    return next((length for length in lengths if length is not None), None)


def _run_length(trainer: pl.Trainer, unit: Unit, batches: float) -> tuple[float, str]:
    """How many epochs or steps a run has, as far as is known, and the setting that says so."""
    # A run for trial has one epoch, whatever is set.
    if getattr(trainer, "fast_dev_run", False):
        return math.inf, ""
    steps = trainer.max_steps if trainer.max_steps >= 0 else math.inf
    by_epochs = _epochs(trainer), f"trainer.max_epochs={trainer.max_epochs}"
    by_steps = steps, f"trainer.max_steps={trainer.max_steps}"
    length, setting = by_epochs if unit == "epoch" else by_steps
    other, other_setting = by_steps if unit == "epoch" else by_epochs
    per_epoch = _steps_per_epoch(trainer, batches)
    if per_epoch is None or math.isinf(other):
        return length, setting
    converted = math.ceil(other / per_epoch) if unit == "epoch" else other * per_epoch
    if length <= converted:
        return length, setting
    return converted, f"{other_setting} at {per_epoch} steps an epoch"


def _epochs(trainer: pl.Trainer) -> float:
    part_of = _run_epochs(trainer)
    found = trainer.max_epochs if part_of is None else part_of
    return math.inf if found is None or found < 0 else found


def _steps_per_epoch(trainer: Any, batches: float) -> int | None:
    """One for every so many batches and one for what is left; None where that is not known."""
    varies = any(is_a("GradientAccumulationScheduler", one) for one in callbacks_of(trainer))
    by_hand = not getattr(trainer.lightning_module, "automatic_optimization", True)
    # Loaders that are made anew may have other lengths, as those of a SubsetWindow do.
    if math.isinf(batches) or varies or by_hand or trainer.reload_dataloaders_every_n_epochs:
        return None
    return math.ceil(batches / trainer.accumulate_grad_batches) or None


def val_check_interval(trainer: Any) -> int | float | None:
    """A Trainer's setting; ``None`` where it is a time, for which the Trainer has no attribute."""
    return getattr(trainer, "val_check_interval", None)


def processes_of(trainer: Any) -> int:
    """In how many processes a Trainer trains, from the start; ``world_size`` knows it later."""
    return trainer.num_devices * trainer.num_nodes


def validate_allocation(trainer: Any) -> None:
    """Raises a UserError where a job of Slurm has not as many processes as the run asks for.

    Lightning takes their number from the job, and would wait for others for ever, or train fewer
    than are asked for, or the same run in each of them.
    """
    if not SLURMEnvironment.detect():
        return
    wanted = processes_of(trainer)
    # Without srun, a script may have tasks that it starts later; a run of one is not one of them.
    found = os.environ.get("SLURM_NTASKS" if wanted > 1 else "SLURM_STEP_NUM_TASKS", "1")
    if int(found) != wanted:
        raise UserError(
            f"this job of Slurm has {found} tasks, but trainer.devices × trainer.num_nodes is "
            f"{trainer.num_devices} × {trainer.num_nodes}; start as many (srun "
            f"--nodes={trainer.num_nodes} --ntasks-per-node={trainer.num_devices}), or set them to "
            "what there is."
        )


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


Histogram = tuple[Any, Any]
"""Counts [B] and edges [B + 1] of a histogram, as NumPy has them."""


def log_media(
    trainer: pl.Trainer,
    histograms: Mapping[str, Histogram] | None = None,
    pictures: Mapping[str, Any] | None = None,
) -> None:
    """Logs histograms and pictures (of Pillow) of this epoch by their keys, where a run logs them.

    Weights & Biases, TensorBoard and MLflow have them each in its own way (MLflow histograms as
    tables); other loggers take numbers alone.
    """
    histograms, pictures, epoch = histograms or {}, pictures or {}, trainer.current_epoch
    for logger in trainer.loggers:
        if is_a("WandbLogger", logger):
            attempt(_to_wandb, logger, histograms, pictures, epoch)
        elif is_a("TensorBoardLogger", logger):
            _to_tensorboard(logger, histograms, pictures, trainer.global_step)
        elif is_a("MLFlowLogger", logger):
            _to_mlflow(logger, histograms, pictures, epoch)


def _to_wandb(
    logger: Any, histograms: Mapping[str, Histogram], pictures: Mapping[str, Any], epoch: int
) -> None:
    # Loaded only where somebody logs there.
    import wandb

    media: dict[str, Any] = {
        key: wandb.Histogram(np_histogram=pair) for key, pair in histograms.items()
    }
    media |= {key: wandb.Image(picture) for key, picture in pictures.items()}
    logger.experiment.log({**media, "epoch": epoch})


def _to_tensorboard(
    logger: Any, histograms: Mapping[str, Histogram], pictures: Mapping[str, Any], step: int
) -> None:
    for key, (counts, edges) in histograms.items():
        middles = (edges[:-1] + edges[1:]) / 2
        logger.experiment.add_histogram_raw(
            key, min=float(edges[0]), max=float(edges[-1]), num=int(counts.sum()),
            sum=float(counts @ middles), sum_squares=float(counts @ middles**2),
            bucket_limits=edges[1:].tolist(), bucket_counts=counts.tolist(), global_step=step,
        )  # fmt: skip
    for key, picture in pictures.items():
        image = np.asarray(picture.convert("RGB"))
        logger.experiment.add_image(key, image, global_step=step, dataformats="HWC")


def _to_mlflow(
    logger: Any, histograms: Mapping[str, Histogram], pictures: Mapping[str, Any], epoch: int
) -> None:
    for key, (counts, edges) in histograms.items():
        bins = {"low": edges[:-1].tolist(), "high": edges[1:].tolist(), "count": counts.tolist()}
        logger.experiment.log_dict(logger.run_id, bins, f"{key}/epoch_{epoch:04d}.json")
    for key, picture in pictures.items():
        logger.experiment.log_image(logger.run_id, picture, f"{key}/epoch_{epoch:04d}.png")


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
