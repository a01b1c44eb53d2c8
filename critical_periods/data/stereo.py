"""Two views of an image: its left and its right part."""

from typing import Any

import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.randomness import Stream, uniform
from critical_periods.data.batch_stage import Images
from critical_periods.data.epochs import Indices
from critical_periods.data.images import ImageDataModule


class Stereo(ImageDataModule):
    """The left and the right part of each image as two views of full size.

    View 0 keeps the leftmost ``width`` columns, view 1 the rightmost; all other columns are zero,
    the mean colour (Kleinman et al. 2023, A.5). Mixed into a DataModule of images.

    Args:
        width: columns that each view keeps, at most the width of the image. Views overlap where
            it is more than half of it.
        mask_probability: in training a sample loses its left view with this probability and its
            right one with the same, never both, so that each view alone is familiar to the network
            when usable information is measured (A.5: 0.1).
        settings: those of the DataModule that this is mixed into.
    """

    num_views = 2

    def __init__(self, width: int, mask_probability: float = 0.0, **settings: Any) -> None:
        super().__init__(**settings)
        self.width = width
        self.mask_probability = mask_probability

    def check(self, train: Images) -> None:
        """Compares the crops' width with the images', and the probability with 1/2."""
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
        """The views [B, 2, C, H, W], zero outside the columns that they keep."""
        width = views.shape[-1]
        column = torch.arange(width, device=views.device)
        seen = torch.stack([column < self.width, column >= width - self.width])
        return views.masked_fill(~seen[:, None, None, :], 0.0)

    def finish(self, batch: Batch, draw: Indices) -> Batch:
        """The batch without the views that its samples lose, all zero."""
        if not self.mask_probability:
            return batch
        draws = uniform(batch.index, 1, Stream.VIEW_MASK, *draw.key)
        view = torch.arange(self.num_views, device=draws.device)
        lost = (draws / self.mask_probability).floor() == view
        return batch._replace(views=batch.views.masked_fill(lost[:, :, None, None, None], 0.0))
