"""Images as sequences of patches, and back."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor

from critical_periods.core.errors import UserError


def patch_grid(image: Tensor, patch: int) -> tuple[int, int]:
    """How many rows and columns of patches an image has.

    Args:
        image: [..., H, W].
        patch: side of a patch in pixels.

    Raises:
        UserError: patches do not fill the image.

    Example:
        >>> import torch
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
        patch: side p of a patch.

    Returns:
        Pixels [B, N, C·p·p], within a patch channel by channel.

    Raises:
        UserError: patches do not fill the image.

    Example:
        >>> import torch
        >>> to_patches(torch.arange(8.0).view(1, 1, 2, 4), patch=2)
        tensor([[[0., 1., 4., 5.],
                 [2., 3., 6., 7.]]])
    """
    rows, columns = patch_grid(image, patch)
    return rearrange(image, "b c (h p) (w q) -> b (h w) (c p q)", h=rows, w=columns)


def to_image(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Puts patches together; undoes :func:`to_patches`.

    Args:
        patches: [B, N, C·p·p].
        grid: rows and columns of patches.
        patch: side p of a patch.

    Returns:
        Images [B, C, H, W].

    Example:
        >>> import torch
        >>> image = torch.randn(2, 3, 32, 48)
        >>> torch.equal(to_image(to_patches(image, 16), (2, 3), 16), image)
        True
    """
    rows, columns = grid
    return rearrange(
        patches, "b (h w) (c p q) -> b c (h p) (w q)", h=rows, w=columns, p=patch, q=patch
    )
