"""Callbacks of Lightning that want of a model what the tasks of this package do not have."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    BackboneFinetuning,
    BaseFinetuning,
    Checkpoint,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
)

from critical_periods.core.errors import UserError, near
from critical_periods.core.internals import followed_by_schedulers, rate_attributes
from critical_periods.core.trainer import callbacks_of
from critical_periods.tasks.task import Task

# What Lightning says by other errors than those of its settings, which are all sentences.
_SENTENCES = ("Early stopping conditioned on metric", "`val_check_interval`")


def validate_callbacks(callbacks: Iterable[pl.Callback], model: pl.LightningModule) -> None:
    """Refuses callbacks that would fail in the middle of Lightning, with the way out.

    Raises:
        UserError: one finds a learning rate or a backbone where the model has none, prunes
            weights whose memory it cannot flatten, or saves where nothing can be written.

    Example:
        >>> validate_callbacks([LearningRateFinder()], pl.LightningModule())
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: LearningRateFinder of trainer.callbacks looks for \
an attribute lr or learning_rate, which LightningModule does not have; set the rate of its \
optimizer, such as model.init_args.optimizer.init_args.lr.
    """
    owner = type(model).__name__
    for callback in callbacks:
        name = f"{type(callback).__name__} of trainer.callbacks"
        wanted = rate_attributes(callback) if isinstance(callback, LearningRateFinder) else []
        if wanted and not any(hasattr(model, one) or one in model.hparams for one in wanted):
            raise UserError(
                f"{name} looks for an attribute {' or '.join(wanted)}, which {owner} does not "
                "have; set the rate of its optimizer, such as "
                "model.init_args.optimizer.init_args.lr."
            )
        if type(callback) is BaseFinetuning:
            raise UserError(f"{name} is what others are derived from; use FreezeWindow.")
        if isinstance(callback, Checkpoint) and (folder := getattr(callback, "dirpath", None)):
            try_folder(f"dirpath of {name}", str(folder))
        # What is derived from it may look for another.
        if type(callback) is BackboneFinetuning and not hasattr(model, "backbone"):
            raise UserError(
                f"{name} looks for an attribute backbone, which {owner} does not have; use "
                "FreezeWindow, which names layers."
            )
        is_flat = all(weight.is_contiguous() for weight in model.parameters())
        if isinstance(callback, ModelPruning) and not is_flat:
            raise UserError(
                f"{name} flattens the weights that it prunes, for which they must be contiguous, "
                f"and those of {owner} are channels last; leave it out."
            )


def try_folder(setting: str, folder: str) -> None:
    """Raises a UserError where a folder, or the one above it that there is, cannot be written to.

    Nothing is left there; what is not on this machine is not tried.
    """
    if "://" in folder:
        return
    place = Path(folder).absolute()
    try:
        with TemporaryFile(dir=next(filter(os.path.lexists, (place, *place.parents)))):
            pass
    except OSError as error:
        raise UserError(f"{setting}: {folder} cannot be written to: {error.strerror}.") from error


def validate_measures(trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Refuses a measure that a callback or scheduler follows, but nothing of the run logs.

    Callbacks of this package log under names of their own (``fisher/trace``), which are not looked
    at. Models and callbacks of third parties may log anything; Lightning finds it after an epoch.

    Raises:
        UserError: the model, a :class:`~critical_periods.tasks.task.Task`, does not log it.
    """
    found = callbacks_of(trainer)
    if not isinstance(model, Task) or not all(map(_logs_known_keys, [model, *found])):
        return
    followed = [
        (f"{type(one).__name__} of trainer.callbacks", str(one.monitor))
        for one in found
        if isinstance(one, (ModelCheckpoint, EarlyStopping))
        if one.monitor not in (None, "epoch", "step") and getattr(one, "strict", True)
    ]
    followed += [("lr_scheduler", key) for key in followed_by_schedulers(trainer)]
    known = [key for key in model.logged if trainer.limit_val_batches != 0 or key[:4] != "val/"]
    for who, key in followed:
        is_other = key.startswith("lr-") or re.match(r"(?!train/|val/)[^/]+/", key)
        if not is_other and not any(f"{key}/".startswith(f"{one}/") for one in known):
            raise UserError(
                f"{who} follows {key!r}, which {type(model).__name__} does not log"
                f"{' without validation' * (key in model.logged)}; {near(key, known)}"
            )


def _logs_known_keys(part: object) -> bool:
    package = type(part).__module__.partition(".")[0]
    return package in ("critical_periods", "pytorch_lightning")


def sentence_of(error: Exception) -> str | None:
    """What Lightning says of a setting by an error of another kind, or ``None``."""
    text = " ".join(str(error).split()).rstrip(".") + "."
    return text if text.startswith(_SENTENCES) else None


def listed(callbacks: Any) -> list[Any]:
    """The callbacks of a config, which may be one alone or none, as a new list.

    Example:
        >>> listed(None), listed("Timer"), listed(["Timer"])
        ([], ['Timer'], ['Timer'])
    """
    return [*callbacks] if isinstance(callbacks, list) else [one for one in [callbacks] if one]
