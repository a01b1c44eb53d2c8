"""The classes that a config names: by their short names, and with settings that may be null."""

import re
from collections.abc import Mapping
from inspect import Parameter
from pkgutil import resolve_name
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytorch_lightning as pl
import torch

from critical_periods import callbacks, data, deficits, guidance, models, tasks
from critical_periods.core.errors import UserError
from critical_periods.core.internals import class_parameters

# The classes that a field takes, by its last name.
_OF_FIELD: dict[str, list[str]] = {
    "model": tasks.__all__,
    "data": data.__all__,
    "network": models.__all__,
    "deficit": deficits.__all__,
    "callbacks": callbacks.__all__ + pl.callbacks.__all__,
    "environment": ["FourRooms", "Gymnasium"],
    "guidance": ["Demonstration", "HelperReward", "MisleadingReward", "Potential"],
    "logger": pl.loggers.__all__,
    "optimizer": torch.optim.__all__,
    "lr_scheduler": torch.optim.lr_scheduler.__all__,
}


def load_classes(text: str | None = None) -> None:
    """Imports the classes of this package that a config's text names, or all of them.

    jsonargparse knows a short name once its class is there.

    Example:
        >>> load_classes("{class_path: Blur, init_args: {factor: 4}}")
        >>> from critical_periods.deficits.deficit import Deficit
        >>> "Blur" in {one.__name__ for one in Deficit.__subclasses__()}
        True
    """
    words = None if text is None else set(re.findall(r"\w+", text))
    for room in (callbacks, data, deficits, guidance, models, tasks):
        for name in room.__all__:
            if words is None or name in words:
                getattr(room, name)


def classes_of(field: str) -> list[str]:
    """The short names of the classes that a field takes, or of all where that is not known.

    Example:
        >>> "SplitAllCNN" in classes_of("model.network"), "Blur" in classes_of("model.network")
        (True, False)
    """
    last = field.rsplit(".", 1)[-1]
    return _OF_FIELD.get(last) or [name for names in _OF_FIELD.values() for name in names]


def validate_nulls(config: Any, field: str = "") -> None:
    """Refuses a null that a class would stumble over; jsonargparse takes it for any type.

    Args:
        config: with classes as ``class_path`` and ``init_args``.
        field: where it stands in the whole config.

    Raises:
        UserError: a setting is null that is neither null by default nor may be null by its type.

    Example:
        >>> blur = {"class_path": "critical_periods.deficits.Blur", "init_args": {"factor": None}}
        >>> validate_nulls({"deficit": blur})
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: deficit.init_args.factor is null, but must be float.
    """
    if isinstance(config, list):
        for part in config:
            validate_nulls(part, field)
    if not isinstance(config, Mapping):
        return
    before = f"{field}." if field else ""
    nulls = {name for name, value in (config.get("init_args") or {}).items() if value is None}
    owner = resolve_name(config["class_path"]) if nulls and config.get("class_path") else None
    for name, setting in class_parameters(owner).items() if owner else ():
        kind = setting.annotation
        kinds = (kind, *get_args(kind))  # of lists, too, in a Callable
        may_be_null = any(one in kinds for one in (NoneType, Any, Parameter.empty))
        if name in nulls and setting.default is not None and not may_be_null:
            wanted = kind.__name__ if isinstance(kind, type) else str(kind)
            if get_origin(kind) is Literal:
                wanted = " or ".join(map(repr, get_args(kind)))
            raise UserError(f"{before}init_args.{name} is null, but must be {wanted}.")
    for name, part in config.items():
        validate_nulls(part, before + str(name))
