"""Which two frames of a video make a sample, and which part of them is cut out."""

from math import ceil

import torch
from torch import Tensor

# Frames that a sample may take lie on a grid of so many a second (0.33 s apart).
GRID_RATE = 3


def grid_length(duration: float) -> int:
    """How many frames of the grid a video holds: those at 0, 1/3, 2/3, … s before its end.

    Example:
        >>> grid_length(10.0), grid_length(1.1), grid_length(0.2)
        (30, 4, 1)
    """
    return max(1, ceil(duration * GRID_RATE - 1e-6))


def needed_length(delay: int | None) -> int:
    """The smallest grid that has a pair with this delay; ``None`` is any delay.

    Example:
        >>> needed_length(4), needed_length(None)
        (5, 2)
    """
    return 2 if delay is None else delay + 1


def draw_pairs(lengths: Tensor, delay: int | None, draws: Tensor, centred: bool) -> Tensor:
    """Two frames of each video, a whole number of grid steps apart.

    With a fixed delay d, the first frame is any of the n - d that have a frame d steps later. With
    a random one, every pair of different frames is as likely; the earlier one comes first.
    Centred pairs lie in the middle of their video. (Kleinman et al. 2023, section 4.3 and A.7:
    frames a multiple of 0.33 s apart, 4 steps or at random.)

    Args:
        lengths: n, frames on each video's grid, [B].
        delay: d in grid steps, or ``None`` for a random one.
        draws: uniform numbers in [0, 1), [B, 2].
        centred: whether the pair lies in the middle instead of anywhere.

    Returns:
        Grid places of the first and the second frame, int64 [B, 2].

    Example:
        >>> draw_pairs(torch.tensor([30, 5]), 4, torch.tensor([[0.5, 0.0], [0.9, 0.0]]), False)
        tensor([[13, 17],
                [ 0,  4]])
        >>> draw_pairs(torch.tensor([30]), 4, torch.zeros(1, 2), centred=True)
        tensor([[12, 16]])
    """
    lengths = lengths.to(torch.int64)
    if delay is None:
        one = _uniform_below(draws[:, 0], lengths)
        # Any frame but that one: so many steps on, around the end.
        other = (one + 1 + _uniform_below(draws[:, 1], lengths - 1)) % lengths
        first, steps = torch.minimum(one, other), (one - other).abs()
    else:
        steps = torch.full_like(lengths, delay)
        first = _uniform_below(draws[:, 0], lengths - steps)
    if centred:
        first = (lengths - 1 - steps) // 2
    return torch.stack([first, first + steps], dim=1)


def draw_box(
    draws: Tensor, width: int, height: int, scale: tuple[float, float]
) -> tuple[float, float, float, float]:
    """A random part of a frame: its area, its shape and its place.

    Its share of the area is uniform in ``scale`` and its width over its height log-uniform in
    [3/4, 4/3], each side cut down to the frame's where it is longer.

    Args:
        draws: uniform numbers in [0, 1), [4].
        width: of the frame in pixels, as ``height``.
        height: of the frame.
        scale: least and largest share of the area.

    Returns:
        Left, top, right, bottom in pixels.

    Example:
        >>> draw_box(torch.tensor([1.0, 0.5, 0.0, 0.0]), 400, 400, (0.25, 1.0))
        (0.0, 0.0, 400.0, 400.0)
    """
    share, shape, left, top = draws.double().tolist()
    area = width * height * (scale[0] + share * (scale[1] - scale[0]))
    ratio = (3 / 4) ** (1 - 2 * shape)
    across, down = min((area * ratio) ** 0.5, width), min((area / ratio) ** 0.5, height)
    x, y = left * (width - across), top * (height - down)
    return x, y, x + across, y + down


def centre_box(width: int, height: int) -> tuple[float, float, float, float]:
    """The largest square in the middle of a frame: left, top, right, bottom.

    Example:
        >>> centre_box(340, 256)
        (42.0, 0.0, 298.0, 256.0)
    """
    side = min(width, height)
    x, y = (width - side) / 2, (height - side) / 2
    return x, y, x + side, y + side


def _uniform_below(draws: Tensor, ends: Tensor) -> Tensor:
    """Whole numbers from 0 to each end, uniform."""
    return (draws.double() * ends).long()
