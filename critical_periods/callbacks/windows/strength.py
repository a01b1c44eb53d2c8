"""How strong a deficit is in each epoch of its window."""

from collections.abc import Mapping
from typing import Any

import torch

from critical_periods.core.errors import UserError, near
from critical_periods.core.randomness import Stream, generator

_KNOWN = ("from", "to", "epochs", "shuffled")


class Strength:
    """A course of strengths over the first epochs of a window.

    In the k-th of ``epochs`` it is from + (to - from) · k / (epochs - 1), and after them ``to``.
    Shuffled, the same strengths come in an order drawn from the run's seed: a control, in which the
    deficit is as strong on average and its course is not graded. After them is ``to``, too.

    Args:
        course: ``from`` and ``to``, each between 0 (no deficit) and 1 (all of it), ``epochs``, and
            perhaps ``shuffled``.
        length: of the window, which ``epochs`` is by default; ``None``: not known.

    Raises:
        UserError: a field is missing, unknown or out of its range.

    Example:
        >>> course = Strength({"from": 1, "to": 0}, length=5)
        >>> [course.at(epoch) for epoch in (0, 1, 4, 7)]
        [1.0, 0.75, 0.0, 0.0]
    """

    def __init__(self, course: Mapping[str, Any], length: int | None = None) -> None:
        for name in course:
            if name not in _KNOWN:
                raise UserError(f"unknown field 'strength.{name}'; {near(str(name), _KNOWN)}")
        for name in ("from", "to"):
            value: Any = course.get(name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 <= value <= 1:
                raise UserError(f"strength.{name} is {value!r}; it must lie between 0 and 1.")
        epochs = course.get("epochs", length)
        if epochs is None:
            raise UserError(
                "strength needs epochs, over how many it changes, as its window has no removal."
            )
        if int(epochs) != epochs or epochs < 1:
            raise UserError(f"strength.epochs is {epochs!r}; it must be a whole number above 0.")
        self.start, self.stop, self.epochs = float(course["from"]), float(course["to"]), int(epochs)
        self.shuffled = bool(course.get("shuffled", False))

    def at(self, since: int, seed: int = 0) -> float:
        """The strength so many epochs (or steps) after the onset, in a run of a seed."""
        if since >= self.epochs:
            return self.stop
        if self.shuffled:
            draws = generator("cpu", Stream.STRENGTH_ORDER, seed)
            since = int(torch.randperm(self.epochs, generator=draws)[since])
        share = since / max(self.epochs - 1, 1)
        return (1 - share) * self.start + share * self.stop
