"""Internals of Lightning, torch and jsonargparse that this package leans on, all in one place.

None of these is a promise of its package's, so each has a function here that says what it is for,
a test in ``tests/core/test_internals.py`` that notices when a release changes it, and an upper
bound on the package's version in ``pyproject.toml``.
"""

from __future__ import annotations

from inspect import Parameter
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

# Lightning and torch, in training.


def in_precision(trainer: pl.Trainer | None, batch: Any) -> Any:
    """A batch in half or double precision, as the Trainer's plugin makes of what a loader yields.

    Lightning converts the loader's own batches before they are moved to the device. The loaders of
    this package yield indices, so their batches are converted when they are made.
    """
    return batch if trainer is None else trainer.precision_plugin.convert_input(batch)


# jsonargparse and LightningCLI, before it.


def set_option_type(parser: ArgumentParser, option: str, kind: Any) -> None:
    """Gives an option of a jsonargparse parser another type than its class's signature says.

    jsonargparse tries the types of a union in their order, and Lightning's ``int | float`` comes
    to it as ``float | int``, so that 1, which means one batch, would become 1.0, all of them.
    """
    action: Any = parser._option_string_actions[option]
    action._typehint = kind


def class_parameters(owner: type) -> dict[str, Parameter]:
    """The parameters of a class, those too that it passes on as ``**kwargs``.

    jsonargparse resolves them in the same way for its parsers, but gives only their names. A
    default that it cannot resolve is ``None`` here.
    """
    from jsonargparse._parameter_resolvers import UnknownDefault, get_signature_parameters

    return {
        one.name: Parameter(
            one.name,
            Parameter.KEYWORD_ONLY,
            default=None if isinstance(one.default, UnknownDefault) else one.default,
            annotation=one.annotation,
        )
        for one in get_signature_parameters(owner)
    }
