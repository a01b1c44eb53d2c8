"""Blur: images downsampled and upsampled again, the model of a cataract."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError
from critical_periods.deficits.deficit import Deficit


class Blur(Deficit):
    """Images downsampled by a factor and upsampled to their size again.

    H x W pixels become round(H / factor) x round(W / factor) and H x W again, both by antialiased
    bilinear interpolation. Blur is linear and keeps constants, so it commutes with normalising.

    Source: Achille, Rovere & Soatto (ICLR 2019), from 32x32 to 8x8 and back; Kleinman, Achille &
    Soatto (CVPR 2023), A.5, on one view.

    Args:
        factor: of the downsampling, above 1.
        views: the views to blur; all by default.

    Raises:
        UserError: the factor is not above 1, or (by ``check``) leaves no pixel.

    Example:
        >>> image = torch.zeros(1, 1, 32, 32)
        >>> image[..., 16:] = 1.0
        >>> blurred = Blur(factor=4).degrade(image)
        >>> blurred.shape, bool(blurred[0, 0, 0].diff().max() < 0.3)
        (torch.Size([1, 1, 32, 32]), True)
    """

    _shown = ("factor", "views")

    def __init__(self, factor: float = 4, views: Sequence[int] | None = None) -> None:
        super().__init__(views)
        if not factor > 1:
            raise UserError(f"factor={factor} of Blur must be above 1.")
        self.factor = factor

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Blurred images [N, C, H, W], computed in float32 or float64; uint8 ones are rounded."""
        size = images.shape[-2:]
        small = [round(length / self.factor) for length in size]
        if min(small) < 1:
            raise UserError(
                f"factor={self.factor} of Blur leaves nothing of an image of {size[0]}x{size[1]} "
                "pixels; choose a smaller factor."
            )
        # Antialiased interpolation is implemented for float32 and float64 alone.
        pixels = images if images.dtype == torch.float64 else images.float()
        pixels = F.interpolate(pixels, small, mode="bilinear", antialias=True)
        pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        return (pixels if images.is_floating_point() else pixels.round()).to(images.dtype)
