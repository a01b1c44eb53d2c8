"""Images of little contrast, and without colour."""

from collections.abc import Sequence

import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.deficits.deficit import Deficit, in_type_of


class LowContrast(Deficit):
    """Images whose pixels keep a part of their distance from the mean of their channel.

        y = m + contrast · (x - m),    m the mean of an image's channel.

    It is linear and keeps constants, so it commutes with normalising.

    Args:
        contrast: what is kept, from 0 (a grey field) to below 1.
        views: the views that it acts on; all by default.

    Raises:
        UserError: the contrast is out of its range.

    Example:
        >>> LowContrast(0.5).degrade(torch.tensor([[[[0.0, 4.0]]]])).flatten()
        tensor([1., 3.])
    """

    _shown = ("contrast", "views")

    def __init__(self, contrast: float = 0.2, views: Sequence[int] | None = None) -> None:
        super().__init__(views)
        if not 0 <= contrast < 1:
            raise UserError(f"{contrast=} of LowContrast must lie from 0 to below 1.")
        self.contrast = contrast

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images [N, C, H, W] of the lower contrast; whole numbers are rounded."""
        pixels = images if images.is_floating_point() else images.float()
        mean = pixels.mean((-2, -1), keepdim=True)
        faded = mean + self.contrast * (pixels - mean)
        return in_type_of(images, faded)


class Greyscale(Deficit):
    """Images of several channels, each of which becomes the mean of all: no colour is left.

    As in newborns, who see little of it. Of normalised images it is the mean of the channels as the
    network sees them.

    Example:
        >>> Greyscale().degrade(torch.tensor([0.0, 3.0, 6.0]).view(1, 3, 1, 1)).flatten()
        tensor([3., 3., 3.])
    """

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images [N, C, H, W] whose channels are alike; whole numbers are rounded."""
        pixels = images if images.is_floating_point() else images.float()
        grey = pixels.mean(-3, keepdim=True).expand_as(pixels)
        return in_type_of(images, grey).clone()
