"""Occlusion: a closed eye."""

from __future__ import annotations

import torch
from torch import Tensor

from critical_periods.deficits.deficit import Deficit


class Occlusion(Deficit):
    """Images all zero: on normalised images the mean colour, as of an eye that is closed.

    It is the monocular deprivation of Wiesel's kittens and the strongest weak eye there is: the
    view carries no information at all.

    Example:
        >>> Occlusion().degrade(torch.ones(1, 1, 2, 2)).sum()
        tensor(0.)
    """

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Zeros in the shape of the images."""
        return torch.zeros_like(images)
