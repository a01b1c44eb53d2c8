"""Figures at random places on a textured ground, among fragments of other figures."""

import torch
from torch import Tensor
from torch.nn import functional as F

_SIZE = 24
_FRAGMENTS, _FRAGMENT = 6, 7


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
        others = figures.roll(shift, 0)
        fragments = others[_squares(others, _FRAGMENT, draws)][:, None]
        canvas = _over(fragments, canvas, draws)
    return _over(figures, canvas, draws)


def _squares(pictures: Tensor, size: int, draws: torch.Generator) -> tuple[Tensor | int, ...]:
    """The index of a random square of each picture [N, 1, S, S]."""
    corner = torch.randint(pictures.shape[-1] - size + 1, (len(pictures), 2), generator=draws)
    rows, columns = (corner[:, axis, None] + torch.arange(size) for axis in (0, 1))
    return torch.arange(len(pictures))[:, None, None], 0, rows[:, :, None], columns[:, None, :]


def _over(top: Tensor, ground: Tensor, draws: torch.Generator) -> Tensor:
    """The ground with a smaller picture laid over it at a random place."""
    layer = torch.zeros_like(ground)
    layer[_squares(ground, top.shape[-1], draws)] = top[:, 0]
    return layer + (1 - layer) * ground
