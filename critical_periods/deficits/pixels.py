"""Pixels in another order: a deficit that keeps all information."""

from collections.abc import Sequence

import torch
from torch import Tensor

from critical_periods.deficits.deficit import Deficit


class PixelPermutation(Deficit):
    """The pixels of each image in one fixed random order, the same for all images and channels.

        y[p] = x[pi(p)]

    Nothing of an image is lost, and a network that knows no neighbourhoods would not mind: what a
    convolutional one learns of such images is of no use to it later. After a deficit that keeps
    all information, what stays is not due to information that was missing.

    Source: as a task, Goodfellow et al. (arXiv 1312.6211).

    Args:
        seed: the order depends on it and on the size of the images alone.
        views: as of every deficit.

    Example:
        >>> image = torch.arange(4.0).view(1, 1, 2, 2)
        >>> PixelPermutation().degrade(image).flatten().sort().values
        tensor([0., 1., 2., 3.])
    """

    _shown = ("seed", "views")

    def __init__(self, seed: int = 0, views: Sequence[int] | None = None) -> None:
        super().__init__(views)
        self.seed = seed

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images [N, C, H, W] with their pixels in the other order."""
        pixels = images.flatten(-2)
        own = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(pixels.shape[-1], generator=own).to(images.device)
        return pixels[..., order].reshape(images.shape)
