"""Values that are null where a class has no use for it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import suppress
from pkgutil import resolve_name
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from critical_periods.core.errors import UserError


def look_for_nulls(tree: Any, field: str = "") -> None:
    """Refuses a null that a class would stumble over; jsonargparse takes it for any type.

    Args:
        tree: of a config, with classes as ``class_path`` and ``init_args``.
        field: where the tree stands in the whole config.

    Raises:
        UserError: a setting is null that is neither null by default nor may be null by its type.

    Example:
        >>> blur = {"class_path": "critical_periods.deficits.Blur", "init_args": {"factor": None}}
        >>> look_for_nulls({"deficit": blur})
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: deficit.init_args.factor is null, but must be float.
    """
    if isinstance(tree, list):
        for part in tree:
            look_for_nulls(part, field)
    if not isinstance(tree, Mapping):
        return
    before = f"{field}." if field else ""
    if isinstance(tree.get("class_path"), str):
        owner = resolve_name(tree["class_path"])
        types: dict[str, Any] = {}
        # Some of torch's are named for type checkers alone.
        with suppress(NameError, TypeError):
            types = get_type_hints(owner.__init__)
        parameters = inspect.signature(owner).parameters
        for name, value in (tree.get("init_args") or {}).items():
            kind = types.get(name, Any)
            may_be_null = kind is Any or kind is NoneType or NoneType in get_args(kind)
            default = parameters[name].default if name in parameters else None
            if value is None and default is not None and not may_be_null:
                wanted = kind.__name__ if isinstance(kind, type) else str(kind)
                if get_origin(kind) is Literal:
                    wanted = " or ".join(map(repr, get_args(kind)))
                raise UserError(f"{before}init_args.{name} is null, but must be {wanted}.")
    for name, part in tree.items():
        look_for_nulls(part, before + str(name))
