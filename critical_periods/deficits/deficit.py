"""The base class of deficits, and the slot for them in a DataModule."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError


class Deficit(nn.Module):
    """A map from batches to batches of the same shapes and types, independent of the epoch.

    A deficit of images implements :meth:`degrade`; one of targets overrides :meth:`forward` and
    sets ``edits_target``. Neither may write into the batch that it is given. A deficit that acts on
    any numbers, such as sound or tables, says so by ``needs_images = False``.

    Args:
        views: numbers of the views that it acts on; all of them by default.

    Raises:
        UserError: ``views`` is empty, negative or names a view twice.

    Example:
        A new deficit:

        >>> class Dim(Deficit):
        ...     def degrade(self, images, generator=None):
        ...         return images / 10
        >>> ones = torch.ones(2, 2, 3, 8, 8)
        >>> batch = Batch(ones, torch.zeros(2), torch.zeros(2), torch.arange(2))
        >>> Dim(views=[1])(batch).views.mean(dim=(0, 2, 3, 4))
        tensor([1.0000, 0.1000])
    """

    edits_target: bool = False
    """Whether targets change; images change otherwise."""
    fades_by_itself: bool = False
    """Whether :meth:`degrade` heeds :attr:`strength`; if not, images are mixed with clean ones."""
    needs_images: bool = True
    """Whether views have to be images; if not, :meth:`degrade` takes any [N, ...]."""

    _shown: tuple[str, ...] = ("views",)

    def __init__(self, views: Sequence[int] | None = None) -> None:
        super().__init__()
        if views is not None and (not views or min(views) < 0 or len(set(views)) < len(views)):
            raise UserError(
                f"views={list(views)} of {type(self).__name__} must name different views, "
                "counted from 0; leave it out for all views."
            )
        self.views = None if views is None else list(views)
        self.strength = 1.0
        """How much of it there is, from 0 to 1, which a window may change by the epoch."""

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """A batch with the deficit.

        Args:
            batch: the batch without it; views [B, V, C, H, W], or [B, V, ..., C, H, W] of videos.
                What is no image is [B, V, ...] of fewer axes, and views that differ a tuple.
            generator: of the draws of random deficits, on the device of the batch.

        Raises:
            UserError: the batch lacks a view that this deficit names, or it has no images.
        """
        if not batch.is_stacked:
            self._check_views(batch)
            chosen = range(len(batch.inputs)) if self.views is None else self.views
            return batch.with_inputs(
                self._degrade(view[:, None].clone(), generator)[:, 0] if place in chosen else view
                for place, view in enumerate(batch.inputs)
            )
        if self.views is None:
            # A third party's deficit may write into the images, which may be part of the data set.
            return batch._replace(views=self._degrade(batch.views.clone(), generator))
        self._check_views(batch)
        views = batch.views.clone()
        views[:, self.views] = self._degrade(batch.views[:, self.views], generator)
        return batch._replace(views=views)

    def _degrade(self, views: Tensor, generator: torch.Generator | None) -> Tensor:
        if self.strength == 1 or self.fades_by_itself:
            return self._degrade_all(views, generator)
        if self.strength == 0:
            return views
        mixed = torch.lerp(
            views.float(), self._degrade_all(views.clone(), generator).float(), self.strength
        )
        return in_type_of(views, mixed)

    def _degrade_all(self, views: Tensor, generator: torch.Generator | None) -> Tensor:
        if not self.needs_images:
            return self.degrade(views.flatten(0, 1), generator).unflatten(0, views.shape[:2])
        if views.ndim < 5:
            raise UserError(
                f"{type(self).__name__} needs images, but these inputs are none; choose a "
                "deficit of any numbers, such as GaussianNoise or Occlusion, or say which axes are "
                "rows and columns of images, such as Project(axes='BTHWC')."
            )
        return self.degrade(views.flatten(0, -4), generator).unflatten(0, views.shape[:-3])

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images [N, C, H, W] with the deficit, of the same shape and type, as a new tensor.

        The frames of a video come as images of their own.
        """
        raise NotImplementedError

    def check(self, batch: Batch) -> None:
        """Checks before training that the deficit can be applied to batches like this one.

        Raises:
            UserError: the data lacks a view that this deficit names, or it cannot be applied.
        """
        self._check_views(batch)
        self(batch, torch.Generator(batch.target.device).manual_seed(0))

    def _check_views(self, batch: Batch) -> None:
        available = len(batch.inputs)
        missing = [view for view in self.views or [] if view >= available]
        if missing:
            raise UserError(
                f"views={self.views} of {type(self).__name__} names view {missing[0]}, but the "
                f"data has {available} view{'s' * (available > 1)}, counted from 0."
            )

    def extra_repr(self) -> str:
        """The settings; ``print`` shows them, and checkpoints distinguish windows by them."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in self._shown)


class DeficitSlot(nn.Module):
    """The deficits that a DataModule applies to its batches at present.

    A DataModule with an attribute ``deficits`` of this type calls it at the place of the deficit in
    its protocol, and :class:`~critical_periods.callbacks.DeficitWindow` fills and empties it.
    Deficits in validation are a list of their own, which applies where ``validating`` is set.

    Example:
        >>> slot = DeficitSlot()
        >>> whose = torch.full((2,), -1)
        >>> batch = Batch(torch.ones(2, 1, 3, 8, 8), torch.arange(2), whose, torch.arange(2))
        >>> slot(batch) is batch
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self.fill([])

    def fill(self, deficits: Iterable[Deficit], in_validation: Iterable[Deficit] = ()) -> None:
        """Replaces the deficits of training and of validation; the first is applied first."""
        self.active = nn.ModuleList(deficits)
        self.in_validation = nn.ModuleList(in_validation)

    def forward(
        self, batch: Batch, generator: torch.Generator | None = None, validating: bool = False
    ) -> Batch:
        """The batch after all deficits of training, or of validation, in their order."""
        for deficit in self.in_validation if validating else self.active:
            batch = deficit(batch, generator)
        return batch


def in_type_of(images: Tensor, pixels: Tensor) -> Tensor:
    """Pixels in the type of the images that they were made of; whole numbers are rounded."""
    return (pixels if images.is_floating_point() else pixels.round()).to(images.dtype)
