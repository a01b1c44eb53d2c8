"""Vertical flip: the world upside down."""

from __future__ import annotations

import torch
from torch import Tensor

from critical_periods.deficits.deficit import Deficit


class VerticalFlip(Deficit):
    """Images upside down: a change of high-level statistics that keeps the low-level ones.

    (Achille, Rovere & Soatto 2019: it leaves almost no permanent impairment.)

    Example:
        >>> VerticalFlip().degrade(torch.arange(4.0).view(1, 1, 2, 2)).flatten()
        tensor([2., 3., 0., 1.])
    """

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The rows of each image in reverse order."""
        return images.flip(-2)
