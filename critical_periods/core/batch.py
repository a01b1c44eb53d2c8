"""The batch of views and targets."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Samples of one or more views with their targets.

    Attributes:
        views: images, [B, V, C, H, W]; one eye is V = 1. What is no image is [B, V, ...]. Views
            of a third party's project that differ in shape or type are a tuple of one tensor
            [B, ...] each, which :func:`~critical_periods.core.finding.find` alone gives.
        target: class numbers [B], or soft targets [B, K].
        target_view: whose target it is, [B]: -1 for all views together, v for view v.
        index: each sample's place in its data set, [B]; -1 where it is not known.
    """

    views: Tensor
    target: Tensor
    target_view: Tensor
    index: Tensor  # type: ignore[assignment] # hides tuple.index

    @property
    def is_stacked(self) -> bool:
        """Whether the views are one tensor, and not a tuple of tensors that differ."""
        return isinstance(self.views, Tensor)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What a network takes: one tensor [B, ...] a view."""
        return self.views.unbind(1) if self.is_stacked else tuple(self.views)

    def with_inputs(self, inputs: Iterable[Tensor]) -> "Batch":
        """A batch with other views, of the same shapes."""
        return self._replace(views=torch.stack([*inputs], 1) if self.is_stacked else mixed(inputs))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """A batch of what a function makes of each tensor."""
        views, *others = self
        changed = change(views) if self.is_stacked else mixed(map(change, self.inputs))
        return Batch(changed, *map(change, others))

    def first(self, number: int) -> "Batch":
        """The first samples."""
        return self.map(lambda part: part[:number])


def join(batches: Iterable[Batch]) -> Batch:
    """The samples of several batches as one.

    Example:
        >>> one = Batch(torch.zeros(2, 1, 3, 8, 8), *torch.zeros(3, 2))
        >>> join([one, one]).views.shape
        torch.Size([4, 1, 3, 8, 8])
    """
    views, *others = zip(*batches, strict=True)
    joined = map(torch.cat, others)
    if isinstance(views[0], Tensor):
        return Batch(torch.cat(views), *joined)
    return Batch(mixed(map(torch.cat, zip(*views, strict=True))), *joined)


def mixed(views: Iterable[Tensor]) -> Tensor:
    """Views of different shapes as ``Batch.views``, which is a Tensor to type checkers."""
    return cast(Tensor, tuple(views))
