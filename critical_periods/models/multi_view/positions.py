"""Fixed sine-cosine positions of patches in two dimensions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError


def sincos_positions(width: int, rows: int, columns: int) -> Tensor:
    """A code of sines and cosines for each place (y, x) of a grid.

        [sin(y ω_i), cos(y ω_i), sin(x ω_i), cos(x ω_i)],  ω_i = 10000^(-i / n),  i = 0 … n - 1,

    with n = width / 4.

    Source: Vaswani et al. (2017), in two dimensions as in MultiMAE (Bachmann et al. 2022).

    Args:
        width: of the code, a multiple of 4.
        rows: patches from top to bottom.
        columns: patches from left to right.

    Returns:
        float32 [1, width, rows, columns].

    Raises:
        UserError: the width is no multiple of 4.

    Example:
        >>> sincos_positions(4, rows=1, columns=2)[0, :, 0, 1]  # y = 0, x = 1
        tensor([0.0000, 1.0000, 0.8415, 0.5403])
    """
    if width % 4:
        raise UserError(f"width={width} must be a multiple of 4, as positions are coded by fours.")
    quarter = torch.arange(width // 4, dtype=torch.float64) / (width // 4)
    frequency = 10000.0 ** -quarter[:, None, None]
    y = frequency * torch.arange(rows)[None, :, None].expand(-1, -1, columns)
    x = frequency * torch.arange(columns)[None, None, :].expand(-1, rows, -1)
    return torch.cat([y.sin(), y.cos(), x.sin(), x.cos()])[None].float()


def fit_positions(
    positions: Tensor, rows: int, columns: int, mode: Literal["bicubic", "bilinear"] = "bicubic"
) -> Tensor:
    """Positions for images of another size, interpolated.

    A patch at the same fraction of the image's height and width keeps its code. MultiMAE's inputs
    interpolate bicubically, its decoders bilinearly.

    Args:
        positions: [1, D, H, W].
        rows: patches from top to bottom of the other images.
        columns: patches from left to right.
        mode: "bicubic" or "bilinear".

    Returns:
        [1, D, rows, columns]; ``positions`` itself where the size is the same.

    Example:
        >>> fit_positions(sincos_positions(8, 4, 4), 7, 7).shape
        torch.Size([1, 8, 7, 7])
    """
    if positions.shape[2:] == (rows, columns):
        return positions
    return F.interpolate(positions, size=(rows, columns), mode=mode)
