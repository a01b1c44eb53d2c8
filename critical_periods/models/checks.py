"""Checks of the arguments of networks."""

from __future__ import annotations

from critical_periods.core.errors import UserError


def check_sizes(**sizes: int) -> None:
    """Requires that each named argument is a whole number of at least one.

    Raises:
        UserError: one of them is something else.

    Example:
        >>> check_sizes(width=64, num_views=0)
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: num_views must be a whole number of at least 1, \
not 0.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise UserError(f"{name} must be a whole number of at least 1, not {size!r}.")


def check_dropout(dropout: float) -> None:
    """Requires a probability of dropout from 0 to below 1.

    Raises:
        UserError: it is something else.
    """
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must be a probability from 0 to below 1, not {dropout!r}.")


def check_views(network: str, given: int, expected: int) -> None:
    """Requires one tensor per view.

    Args:
        network: the network's name, for the message.
        given: how many tensors the network was called with.
        expected: how many it takes.

    Raises:
        UserError: the two differ.

    Example:
        >>> check_views("AllCNN", given=2, expected=1)
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: AllCNN takes 1 view but was given 2; choose a \
network (num_views) and data with the same number of views.
    """
    if given != expected:
        raise UserError(
            f"{network} takes {expected} view{'s' if expected > 1 else ''} but was given {given}; "
            "choose a network (num_views) and data with the same number of views."
        )
