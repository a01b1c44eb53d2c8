"""Vertical flip: the rows of images in reverse order."""

import torch
from torch import Tensor

from critical_periods.deficits.deficit import Deficit


class VerticalFlip(Deficit):
    """The rows of each image in reverse order: y[i, j] = x[H - 1 - i, j].

    It changes high-level statistics and keeps low-level ones.

    Source: Achille, Rovere & Soatto (ICLR 2019), where it leaves almost no loss.

    Example:
        >>> VerticalFlip().degrade(torch.arange(4.0).view(1, 1, 2, 2)).flatten()
        tensor([2., 3., 0., 1.])
    """

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Flipped images [N, C, H, W]."""
        return images.flip(-2)
