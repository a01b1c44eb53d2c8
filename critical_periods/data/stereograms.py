"""Random-dot stereograms of digits, whose class is in neither view alone but in both together."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError
from critical_periods.core.randomness import Stream, uniform
from critical_periods.data.batch_stage import Images
from critical_periods.data.digits import read_digits
from critical_periods.data.epochs import Indices
from critical_periods.data.stereo import Stereo

_SMALLEST = 8
# Of 255: how bright a part of a digit must be to belong to its shape.
_BRIGHT = 100
_TEST_PER_CLASS = 400


class StereogramDataModule(Stereo):
    """Digits in depth, in two views that tell the class together and neither of them alone.

    Julesz, *Binocular depth perception of computer-generated patterns* (1960): two fields of
    random dots that are alike, but for a shape whose dots are shifted in one of them by the
    disparity (:func:`stereogram`, which says why each view alone is pure noise). Here the shapes
    are scikit-learn's handwritten digits, and a dot is a pixel, black or white (-1 or 1). In the
    partial information decomposition of Kleinman, Achille & Soatto (CVPR 2023, section 2) each view
    has no unique information on the class and the two have none that is redundant: I(X_0; Y) =
    I(X_1; Y) = 0 exactly, and all of I(X_0, X_1; Y) is synergy. One eye stays at chance, 1/10,
    whatever the network. Two views of different samples are independent noise, so under
    :class:`~critical_periods.deficits.Dissociation` every label is noise too.

    Samples are drawn on the device as they are needed, those of training anew in each epoch, by
    (seed, epoch, index); those of validation, of the test and of measurements by their index
    alone, so that they are the same in every epoch and every run. An epoch has one stereogram of
    each of 1,000 training digits; the test split 4,000, of 797 other digits, four to six of each,
    400 of each class: then chance is exactly 1/10 even for a network that knows which classes
    are frequent, with a standard error of 0.47 points.

    Args:
        size: height and width of a view in pixels, at least 8.
        disparity: by how many pixels the dots of the shape are shifted, from 1 to below ``size``.
        settings: ``mask_probability`` of :class:`.Stereo` and those of :class:`.ImageDataModule`
            but for ``augment``.

    Raises:
        UserError: a setting is out of its range.

    Example:
        >>> data = StereogramDataModule(batch_size=64)
        >>> data.setup()
        >>> draw = next(iter(data.train_dataloader()))
        >>> shapes = data.transfer_batch_to_device(draw, torch.device("cpu"), 0)
        >>> views = data.on_after_batch_transfer(shapes, 0).views
        >>> views.shape, views.unique().tolist()
        (torch.Size([64, 2, 1, 32, 32]), [-1.0, 1.0])
    """

    def __init__(self, size: int = 32, disparity: int = 1, **settings: Any) -> None:
        # Both views see everything.
        super().__init__(width=size, augment="none", **settings)
        if size < _SMALLEST:
            raise UserError(
                f"size={size} of the stereograms must be at least {_SMALLEST} pixels, or the "
                "digits cannot be told apart."
            )
        if not 1 <= disparity < size:
            raise UserError(
                f"disparity={disparity} of the stereograms must lie between 1 and {size - 1} "
                f"pixels, within their size={size}."
            )
        self.size, self.disparity = size, disparity

    def load(self) -> tuple[Images, Images]:
        """The shapes, 1 within a digit and 0 around it: uint8 [N, 1, size, size]."""
        train, test = (self._shapes(images) for images in read_digits())
        members = [(test.target == label).nonzero().flatten() for label in test.target.unique()]
        chosen = torch.cat([one[torch.arange(_TEST_PER_CLASS) % len(one)] for one in members])
        return train, Images(*(part[chosen] for part in test))

    def _shapes(self, images: Images) -> Images:
        pixels = F.interpolate(images.pixels.float(), self.size, mode="bilinear")
        return images._replace(pixels=(pixels > _BRIGHT).to(torch.uint8))

    def views(self, pixels: Tensor, draw: Indices) -> Tensor:
        """The views [B, 2, 1, size, size]: dots of mean 0 and variance 1, drawn now."""
        height, width = self.size, self.size + self.disparity
        draws = uniform(draw.index, height * (width + self.size), Stream.DOTS, *draw.key)
        dots = torch.where(draws < 0.5, -1.0, 1.0)
        scene, fresh = dots.view(-1, height, width + self.size).split([width, self.size], dim=2)
        return stereogram(pixels[:, 0].bool(), scene, fresh)


def stereogram(shapes: Tensor, scene: Tensor, fresh: Tensor) -> Tensor:
    """Two views of a field of dots, in which a shape lies nearer than the ground.

    With the shape S, a scene of dots D that is d columns wider than a view, and fresh dots N,

        left[y, x]  = D[y, x],
        right[y, x] = D[y, x + d]  where (y, x) is in S,
                      N[y, x]      else, where (y, x - d) is in S: uncovered by the shape's shift,
                      D[y, x]      elsewhere: the ground.

    **Each view alone is noise.** Let all dots of D and N be independent and alike in law, whatever
    the shape is. The left view is a part of D. In the right view no dot occurs twice: two pixels of
    the shape take different dots of D, so do two pixels of the ground, and if a pixel (y, x') of
    the shape took the same D[y, x] as (y, x), then x = x' + d, so (y, x - d) is in S and (y, x)
    takes N[y, x] instead. So, for every shape, the pixels of either view are different members of a
    family of independent variables of one law, hence independent and of that law themselves: the
    law of a view does not depend on the shape, and a view has no information on it. Only the pair
    has: the views agree on the ground, and at the shape no more often than chance has it.

    Args:
        shapes: whether each pixel belongs to the shape as the right eye sees it, bool [B, H, W].
        scene: the dots D, [B, H, W + d], of any type.
        fresh: the dots N, [B, H, W].

    Returns:
        The left and the right view, [B, 2, 1, H, W].

    Example:
        >>> shape = torch.tensor([[[False, True, True, False, False]]])
        >>> scene = torch.tensor([[[1, 2, 3, 4, 5, 6]]])  # one column more: a disparity of 1
        >>> fresh = torch.tensor([[[10, 20, 30, 40, 50]]])
        >>> left, right = stereogram(shape, scene, fresh).flatten(2)[0]
        >>> left.tolist(), right.tolist()
        ([1, 2, 3, 4, 5], [1, 3, 4, 40, 5])
    """
    width = shapes.shape[-1]
    disparity = scene.shape[-1] - width
    left = scene[..., :width]
    uncovered = F.pad(shapes, (disparity, 0))[..., :width]
    right = torch.where(shapes, scene[..., disparity:], torch.where(uncovered, fresh, left))
    return torch.stack([left, right], dim=1)[:, :, None]
