"""scikit-learn's handwritten digits, which need no download, in one view and in two."""

from functools import lru_cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch.nn import functional as F

from critical_periods.data.batch_stage import Images
from critical_periods.data.clutter import scatter
from critical_periods.data.images import ImageDataModule
from critical_periods.data.stereo import Stereo

_TRAIN, _SEED = 1000, 0


@lru_cache(maxsize=2)
def read_digits(clutter: bool = False) -> tuple[Images, Images]:
    """The 1,797 digits of Alpaydin & Kaynak (UCI) as 1,000 training and 797 test images.

    Args:
        clutter: on a ground of 24x24 pixels among fragments of others
            (:func:`~critical_periods.data.clutter.scatter`) instead of alone on 16x16.

    Returns:
        Training and test images, uint8 [N, 1, S, S]. The split is one fixed permutation.

    Example:
        >>> train, test = read_digits()
        >>> train.pixels.shape, len(test.target)
        (torch.Size([1000, 1, 16, 16]), 797)
    """
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(_SEED))
    pixels = torch.from_numpy(digits.images).float()[order, None] / 16
    target = torch.from_numpy(digits.target).long()[order]
    pixels = F.interpolate(pixels, size=16, mode="bilinear")
    figures = [pixels[:_TRAIN], pixels[_TRAIN:]]
    if clutter:
        # Fragments come from the same split, so that no test digit is seen in training.
        figures = [scatter(part, seed) for seed, part in enumerate(figures)]
    train, test = ((part * 255).round().to(torch.uint8) for part in figures)
    return Images(train, target[:_TRAIN]), Images(test, target[_TRAIN:])


class DigitsDataModule(ImageDataModule):
    """Handwritten digits in one view: 1,000 to train on, 797 to test on, 16x16 pixels, grey.

    Augmentation shifts by up to 2 pixels and never flips.

    Args:
        clutter: digits placed at random over textured ground among fragments of other digits, on
            24x24 pixels: a harder task on which a deficit shows in accuracy too.
        settings: those of :class:`~critical_periods.data.images.ImageDataModule`.

    Example:
        >>> data = DigitsDataModule(batch_size=64)
        >>> data.setup()
        >>> draw = next(iter(data.train_dataloader()))
        >>> images = data.transfer_batch_to_device(draw, torch.device("cpu"), 0)
        >>> data.on_after_batch_transfer(images, 0).views.shape
        torch.Size([64, 1, 1, 16, 16])
    """

    padding = 2
    flip = False

    def __init__(self, clutter: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.clutter = clutter
        self.mean, self.std = ([0.443], [0.299]) if clutter else ([0.304], [0.318])

    def load(self) -> tuple[Images, Images]:
        """The digits, alone or in clutter."""
        return read_digits(self.clutter)


class StereoDigitsDataModule(Stereo, DigitsDataModule):
    """Handwritten digits in two views: the left and the right ``width`` columns of each image.

    Args:
        width: columns that each view keeps, of 16 (24 with clutter).
        settings: those of :class:`.Stereo` and :class:`DigitsDataModule`.

    Example:
        >>> data = StereoDigitsDataModule(width=8)
        >>> data.setup()
        >>> draw = next(iter(data.val_dataloader()))
        >>> images = data.transfer_batch_to_device(draw, torch.device("cpu"), 0)
        >>> left, right = data.on_after_batch_transfer(images, 0).views.unbind(1)
        >>> left[..., 8:].abs().max().item(), right[..., :8].abs().max().item()
        (0.0, 0.0)
    """

    def __init__(self, width: int = 8, **settings: Any) -> None:
        super().__init__(width=width, **settings)
