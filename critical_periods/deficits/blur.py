"""Blur: images downsampled and upsampled again, the model of a cataract."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError
from critical_periods.deficits.deficit import Deficit, in_type_of


class Blur(Deficit):
    """Images downsampled by a factor and upsampled to their size again, or blurred by a Gaussian.

    With a ``factor``, H x W pixels become round(H / factor) x round(W / factor) and H x W again,
    both by antialiased bilinear interpolation; with a ``sigma``, they are convolved with a Gaussian
    of that standard deviation, images being mirrored at their edges, and a strength below 1 makes
    it narrower. Blur is linear and keeps constants, so it commutes with normalising.

    Source: Achille, Rovere & Soatto (ICLR 2019), from 32x32 to 8x8 and back; Kleinman, Achille &
    Soatto (CVPR 2023), A.5, on one view.

    Args:
        factor: of the downsampling, above 1.
        views: the views to blur; all by default.
        sigma: instead of a factor, the standard deviation of a Gaussian in pixels.

    Raises:
        UserError: the factor is not above 1, or (by ``check``) leaves no pixel; sigma is not above
            0, or both are given.

    Example:
        >>> image = torch.zeros(1, 1, 32, 32)
        >>> image[..., 16:] = 1.0
        >>> blurred = Blur(factor=4).degrade(image)
        >>> blurred.shape, bool(blurred[0, 0, 0].diff().max() < 0.3)
        (torch.Size([1, 1, 32, 32]), True)
    """

    def __init__(
        self,
        factor: float = 4,
        views: Sequence[int] | None = None,
        sigma: float | None = None,
    ) -> None:
        super().__init__(views)
        if not factor > 1:
            raise UserError(f"factor={factor} of Blur must be above 1.")
        if sigma is not None and not sigma > 0:
            raise UserError(f"{sigma=} of Blur must be above 0.")
        # The default cannot be told from one that was given.
        if sigma is not None and factor != 4:
            raise UserError(f"Blur has factor={factor} and {sigma=}; give one of them.")
        self._shown = ("factor" if sigma is None else "sigma", "views")
        self.factor, self.sigma = factor, sigma
        self.fades_by_itself = sigma is not None

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Blurred images [N, C, H, W], computed in float32 or float64; uint8 ones are rounded."""
        size = images.shape[-2:]
        if self.sigma is not None:
            return self._gaussian(images, self.sigma * self.strength)
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
        return in_type_of(images, pixels)

    def _gaussian(self, images: Tensor, sigma: float) -> Tensor:
        if sigma == 0:
            return images.clone()
        # Loaded where it is needed alone, as it takes a second.
        from torchvision.transforms.v2.functional import gaussian_blur

        # Beyond three standard deviations there is nothing; a mirror is no larger than its image.
        widths = [2 * min(math.ceil(3 * sigma), side - 1) + 1 for side in images.shape[:-3:-1]]
        pixels = images if images.dtype == torch.float64 else images.float()
        pixels = gaussian_blur(pixels, widths, [sigma, sigma])
        return in_type_of(images, pixels)
