"""Iterators that a network keeps, from which a measurement must not take anything."""

import copy
import itertools
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from critical_periods.core.errors import UserError

# What is given out by iterators of these is not counted anywhere else.
_SEQUENCES: tuple[Any, ...] = [], (), range(0), "a", "é", b""
_ITERATORS = (itertools.count, itertools.cycle, *(type(iter(of)) for of in _SEQUENCES))


def stand_in(value: Any, name: Any) -> Any:
    """What goes on for an iterator for a while, so that nothing is taken from it.

    A copy of one that can be copied; otherwise an iterator that raises a UserError with its first
    element. None where ``value`` is no iterator, or of a project's own class.

    Example:
        >>> count = itertools.count()
        >>> other = stand_in(count, "calls")
        >>> next(other), next(other), next(count)
        (0, 1, 0)
    """
    of_others = type(value).__module__.partition(".")[0] in ("builtins", "itertools", "torch")
    if not isinstance(value, Iterator) or not of_others:
        return None
    other = _copied_iterator(value)
    return _Refusing(value, name) if other is None else other


def _copied_iterator(value: Any) -> Any:
    """An iterator that goes on as this one would; None where there is none, or it is none."""
    if type(value) not in _ITERATORS:
        return None
    # Python 3.14 copies those of itertools no longer.
    with suppress(TypeError), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if type(value) is not itertools.cycle:
            return copy.copy(value)
        made: Any = value.__reduce__()
        _, (source,), (seen, is_complete) = made
        if (other := _copied_iterator(source)) is not None:
            cycle: Any = itertools.cycle(other)
            cycle.__setstate__(([*seen], is_complete))
            return cycle
    return None


class _Refusing:
    """Stands in for an iterator that cannot go back."""

    def __init__(self, iterator: Any, name: Any) -> None:
        self.kind, self.name = type(iterator).__name__, name

    def __iter__(self) -> "_Refusing":
        return self

    def __next__(self) -> Any:
        raise UserError(
            f"a forward pass takes from {self.name!r}, a {self.kind}, what training would miss, as "
            "that cannot go back; let it be an itertools.cycle of a list, or an object of a class "
            "of your own with __next__, or take from it in training_step."
        )
