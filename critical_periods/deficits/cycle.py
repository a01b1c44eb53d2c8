"""Another sample of the batch for each sample, as dissociation and label noise need it."""

import torch
from torch import Tensor

from critical_periods.core.errors import UserError


def random_cycle(size: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """A permutation that is one random cycle through all samples, so it has no fixed point.

    Args:
        size: of the batch, at least 2.
        generator: of the draws, on ``device``.
        device: of the result, for each sample the place of another one, int64 [size].
    """
    order = torch.randperm(size, generator=generator, device=device)
    cycle = torch.empty_like(order)
    cycle[order] = order.roll(1)
    return cycle


def check_probability(p: float, deficit: str) -> float:
    """The probability; a UserError that names the deficit if it is none."""
    if not 0 <= p <= 1:
        raise UserError(f"p={p} of {deficit} must be a probability, from 0 to 1.")
    return p


def check_others(size: int, taking: str) -> None:
    """A UserError that begins with ``taking`` where a batch has no other samples to take from."""
    if size < 2:
        raise UserError(
            f"{taking} of a batch, but batches have one sample; choose a batch_size of at least 2."
        )
