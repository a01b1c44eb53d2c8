"""Two eyes: each view sees one side of the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.randomness import uniform
from critical_periods.data.images import _MASK, ImageDataModule, Images


class Stereo(ImageDataModule):
    """The left and the right part of each image as two views of full size.

    View 0 keeps the leftmost ``width`` columns, view 1 the rightmost; all other columns are zero,
    the mean colour (Kleinman et al. 2023, A.5). Mixed into a DataModule of whole images.

    Args:
        width: columns that each view keeps, at most the width of the image. Views overlap where
            it is more than half of it.
        mask_probability: in training a sample loses its left view with this probability and its
            right one with the same, never both, so that each view alone is familiar to the network
            when usable information is measured (A.5: 0.1).
    """

    num_views = 2
    width: int
    mask_probability: float

    def _check(self, train: Images) -> None:
        available = train.pixels.shape[-1]
        if not 1 <= self.width <= available:
            raise UserError(
                f"width={self.width} of the crops must lie between 1 and {available}, the width "
                "of the images."
            )
        if not 0 <= self.mask_probability <= 0.5:
            raise UserError(
                f"mask_probability={self.mask_probability} must lie between 0 and 0.5, since the "
                "two views are never masked together."
            )

    def crop(self, views: Tensor) -> Tensor:
        """The views [B, 2, C, H, W] with zeros where they do not look."""
        width = views.shape[-1]
        column = torch.arange(width, device=views.device)
        seen = torch.stack([column < self.width, column >= width - self.width])
        return views.masked_fill(~seen[:, None, None, :], 0.0)

    def _masked(self, batch: Batch, words: tuple[int, int]) -> Batch:
        if not self.mask_probability:
            return batch
        draw = uniform(batch.index, 1, _MASK, *words)
        view = torch.arange(self.num_views, device=draw.device)
        lost = (draw / self.mask_probability).floor() == view
        return batch._replace(views=batch.views.masked_fill(lost[:, :, None, None, None], 0.0))
