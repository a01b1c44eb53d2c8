"""Figures at random places on a textured ground, among fragments of other figures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SIZE = 24
_FRAGMENTS = 6
_FRAGMENT = 7


def scatter(figures: Tensor, seed: int) -> Tensor:
    """Places each figure at random on a ground of its own.

    The ground is smooth noise of random brightness with six fragments of 7x7 pixels from other
    figures; the figure lies on top, as if its brightness were its opacity.

    Args:
        figures: brightness in [0, 1], [N, 1, S, S] with S of at most 24.
        seed: of all that is random; the same seed gives the same pictures.

    Returns:
        Brightness in [0, 1], [N, 1, 24, 24].

    Example:
        >>> pictures = scatter(torch.ones(4, 1, 16, 16), seed=0)
        >>> pictures.shape, bool((pictures == 1).sum(dim=(1, 2, 3)).min() >= 256)
        (torch.Size([4, 1, 24, 24]), True)
    """
    draws = torch.Generator().manual_seed(seed)
    count = len(figures)
    coarse = torch.rand(count, 1, 6, 6, generator=draws)
    brightness = 0.2 + 0.5 * torch.rand(count, 1, 1, 1, generator=draws)
    canvas = brightness * F.interpolate(coarse, _SIZE, mode="bicubic").clamp(0, 1)
    for _ in range(_FRAGMENTS):
        # A shift by 1 to N - 1 places never gives a figure a fragment of itself.
        shift = int(torch.randint(1, max(count, 2), (), generator=draws))
        fragments = _cut(figures.roll(shift, 0), _FRAGMENT, draws)
        canvas = _over(fragments, canvas, draws)
    return _over(figures, canvas, draws)


def _cut(figures: Tensor, size: int, draws: torch.Generator) -> Tensor:
    """A random square of each figure."""
    corner = torch.randint(figures.shape[-1] - size + 1, (len(figures), 2), generator=draws)
    rows, columns = (corner[:, axis, None] + torch.arange(size) for axis in (0, 1))
    sample = torch.arange(len(figures))[:, None, None]
    return figures[:, 0][sample, rows[:, :, None], columns[:, None, :]][:, None]


def _over(top: Tensor, ground: Tensor, draws: torch.Generator) -> Tensor:
    """The ground with a smaller picture laid over it at a random place."""
    size = top.shape[-1]
    corner = torch.randint(_SIZE - size + 1, (len(top), 2), generator=draws)
    rows, columns = (corner[:, axis, None] + torch.arange(size) for axis in (0, 1))
    sample = torch.arange(len(top))[:, None, None]
    layer = torch.zeros_like(ground[:, 0])
    layer[sample, rows[:, :, None], columns[:, None, :]] = top[:, 0]
    layer = layer[:, None]
    return layer + (1 - layer) * ground
