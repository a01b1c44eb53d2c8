"""Callbacks of Lightning that want of a model what the tasks of this package do not have."""

from collections.abc import Iterable
from enum import Enum
from pkgutil import resolve_name
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BackboneFinetuning, LearningRateFinder, ModelPruning

from critical_periods.core.errors import UserError
from critical_periods.core.internals import class_parameters, rate_attributes

# What Lightning says by other errors than those of its settings, which are all sentences.
_SENTENCES = ("Early stopping conditioned on metric",)


def validate_callbacks(callbacks: Iterable[pl.Callback], model: pl.LightningModule) -> None:
    """Refuses callbacks that would fail in the middle of Lightning, with the way out.

    Raises:
        UserError: one finds a learning rate or a backbone where the model has none, or prunes
            weights whose memory it cannot flatten.

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


def sentence_of(error: Exception) -> str | None:
    """What Lightning says of a setting by an error of another kind, or ``None``."""
    text = " ".join(str(error).split()).rstrip(".") + "."
    return text if text.startswith(_SENTENCES) else None


def without_enums(callbacks: Iterable[Any]) -> None:
    """Turns enumerations that are defaults of text settings into text, which YAML has words for.

    ``callbacks`` are those of a config: Timer's ``interval`` has such a default.
    """
    for callback in callbacks:
        init_args = getattr(callback, "init_args", None)
        for name, value in [*vars(init_args).items()] if init_args else ():
            if isinstance(value, Enum) and isinstance(value, str):
                kind = class_parameters(resolve_name(callback.class_path))[name].annotation
                setattr(init_args, name, str(value.value) if kind is str else value)


def listed(callbacks: Any) -> list[Any]:
    """The callbacks of a config, which may be one alone or none, as a new list.

    Example:
        >>> listed(None), listed("Timer"), listed(["Timer"])
        ([], ['Timer'], ['Timer'])
    """
    return [*callbacks] if isinstance(callbacks, list) else [one for one in [callbacks] if one]
