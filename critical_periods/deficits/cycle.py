"""Another sample of the batch for every one."""

from __future__ import annotations

import torch
from torch import Tensor


def random_cycle(size: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """A permutation that is one random cycle through all samples: it leaves none in its place.

    Args:
        size: of the batch, at least 2.
        generator: on ``device``.
        device: where the permutation is needed.

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
