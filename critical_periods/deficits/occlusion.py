"""Occlusion: images replaced by zeros, the model of a closed eye."""

import torch
from torch import Tensor

from critical_periods.deficits.deficit import Deficit


class Occlusion(Deficit):
    """Every pixel replaced by 0, which is the mean colour of normalised images.

    The view has no information at all, the extreme of a weak eye.

    Source: the monocular deprivation of Wiesel & Hubel (1963).

    Example:
        >>> Occlusion().degrade(torch.ones(1, 1, 2, 2)).sum()
        tensor(0.)
    """

    needs_images = False

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Zeros of the shape and type of the images, [N, C, H, W]."""
        return torch.zeros_like(images)
