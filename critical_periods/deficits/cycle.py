"""Another sample of the batch for each sample, as dissociation and label noise need it."""

from __future__ import annotations

import torch
from torch import Tensor

from critical_periods.core.errors import UserError


def random_cycle(size: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """A permutation that is one random cycle through all samples, so it has no fixed point.

    Args:
        size: of the batch, at least 2.
        generator: of the draws, on ``device``.
        device: of the result.

    Returns:
        For each sample the place of another one, int64 [size].

    Example:
        >>> cycle = random_cycle(3, torch.Generator().manual_seed(0), torch.device("cpu"))
        >>> sorted(cycle.tolist()), bool((cycle == torch.arange(3)).any())
        ([0, 1, 2], False)
    """
    order = torch.randperm(size, generator=generator, device=device)
    cycle = torch.empty_like(order)
    cycle[order] = order.roll(1)
    return cycle


def check_probability(p: float, deficit: str) -> float:
    """Requires a probability, from 0 to 1.

    Raises:
        UserError: it is something else; the message names the deficit.
    """
    if not 0 <= p <= 1:
        raise UserError(f"p={p} of {deficit} must be a probability, from 0 to 1.")
    return p


def check_others(size: int, taking: str) -> None:
    """Requires that a batch has other samples to take something from.

    Raises:
        UserError: it has one sample; the message begins with ``taking``.
    """
    if size < 2:
        raise UserError(
            f"{taking} of a batch, but batches have one sample; choose a batch_size of at least 2."
        )
