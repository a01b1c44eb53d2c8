"""Images as sequences of patches, and back, and the fixed positions of the patches."""

from typing import Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError


def patch_grid(image: Tensor, patch: int) -> tuple[int, int]:
    """How many rows and columns of patches, ``patch`` pixels a side, fill an image [..., H, W].

    Raises a UserError where they do not fill it.

    Example:
        >>> patch_grid(torch.zeros(2, 3, 32, 48), patch=16)
        (2, 3)
    """
    height, width = image.shape[-2:]
    if height % patch or width % patch or not height or not width:
        raise UserError(
            f"images of {height}x{width} pixels cannot be cut into patches of {patch}x{patch}; "
            "resize the images or choose another patch."
        )
    return height // patch, width // patch


def to_patches(image: Tensor, patch: int) -> Tensor:
    """Cuts images into patches, row by row.

    Args:
        image: [B, C, H, W].
        patch: side p of a patch; patches must fill the image.

    Returns:
        Pixels [B, N, C·p·p], within a patch channel by channel.

    Example:
        >>> to_patches(torch.arange(8.0).view(1, 1, 2, 4), patch=2)
        tensor([[[0., 1., 4., 5.],
                 [2., 3., 6., 7.]]])
    """
    rows, columns = patch_grid(image, patch)
    return rearrange(image, "b c (h p) (w q) -> b (h w) (c p q)", h=rows, w=columns)


def to_image(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Images [B, C, H, W] from patches [B, N, C·p·p] of a grid; undoes :func:`to_patches`.

    Example:
        >>> image = torch.randn(2, 3, 32, 48)
        >>> torch.equal(to_image(to_patches(image, 16), (2, 3), 16), image)
        True
    """
    pattern = "b (h w) (c p q) -> b c (h p) (w q)"
    return rearrange(patches, pattern, h=grid[0], w=grid[1], p=patch, q=patch)


def sincos_positions(width: int, rows: int, columns: int) -> Tensor:
    """A code of sines and cosines for each place (y, x) of a grid.

        [sin(y ω_i), cos(y ω_i), sin(x ω_i), cos(x ω_i)],  ω_i = 10000^(-i / n),  i = 0 … n - 1,

    with n = width / 4.

    Source: Vaswani et al. (2017), in two dimensions as in MultiMAE (Bachmann et al. 2022).

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
        mode: of the interpolation.

    Returns:
        [1, D, rows, columns]; ``positions`` itself where the size is the same.

    Example:
        >>> fit_positions(sincos_positions(8, 4, 4), 7, 7).shape
        torch.Size([1, 8, 7, 7])
    """
    if positions.shape[2:] == (rows, columns):
        return positions
    return F.interpolate(positions, size=(rows, columns), mode=mode)
