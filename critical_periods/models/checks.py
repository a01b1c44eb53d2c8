"""Checks of the arguments of networks."""

from critical_periods.core.errors import UserError


def check_sizes(**sizes: int) -> None:
    """Raises a UserError unless each named argument is a whole number of at least one."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise UserError(f"{name} must be a whole number of at least 1, not {size!r}.")


def check_dropout(dropout: float) -> None:
    """Raises a UserError unless ``dropout`` is a probability from 0 to below 1."""
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must be a probability from 0 to below 1, not {dropout!r}.")


def check_views(network: str, given: int, expected: int) -> None:
    """Raises a UserError unless the named network is given as many views as it expects."""
    if given != expected:
        raise UserError(
            f"{network} takes {expected} view{'s' if expected > 1 else ''} but was given {given}; "
            "choose a network (num_views) and data with the same number of views."
        )
