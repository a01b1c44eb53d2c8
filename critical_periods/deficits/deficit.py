"""What all deficits share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError


class Deficit(nn.Module):
    """A change of a batch that keeps its shapes and knows nothing of epochs.

    A deficit that degrades images implements :meth:`degrade`; one that changes targets overrides
    :meth:`forward` and sets ``edits_target``. It never writes into the batch that it was given.

    Args:
        views: numbers of the views that it acts on; all of them by default.

    Raises:
        UserError: ``views`` is empty, negative or names a view twice.

    Example:
        A deficit of one's own:

        >>> class Dim(Deficit):
        ...     def degrade(self, images, generator=None):
        ...         return images / 10
        >>> ones = torch.ones(2, 2, 3, 8, 8)
        >>> batch = Batch(ones, torch.zeros(2), torch.zeros(2), torch.arange(2))
        >>> Dim(views=[1])(batch).views.mean(dim=(0, 2, 3, 4))
        tensor([1.0000, 0.1000])
    """

    edits_target: bool = False

    def __init__(self, views: Sequence[int] | None = None) -> None:
        super().__init__()
        if views is not None and (not views or min(views) < 0 or len(set(views)) < len(views)):
            raise UserError(
                f"views={list(views)} of {type(self).__name__} must name different views, "
                "counted from 0; leave it out for all views."
            )
        self.views = None if views is None else list(views)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """The batch with the deficit.

        Args:
            batch: any batch; views [B, V, C, H, W].
            generator: where random deficits draw from, on the device of the batch.

        Raises:
            UserError: the batch lacks a view that this deficit names.
        """
        if self.views is None:
            # Someone's deficit may write into what it gets, which may be a slice of the data set.
            return batch._replace(views=self._degrade(batch.views.clone(), generator))
        self._look_for_views(batch)
        views = batch.views.clone()
        views[:, self.views] = self._degrade(batch.views[:, self.views], generator)
        return batch._replace(views=views)

    def _degrade(self, views: Tensor, generator: torch.Generator | None) -> Tensor:
        degraded = self.degrade(rearrange(views, "b v c h w -> (b v) c h w"), generator)
        return rearrange(degraded, "(b v) c h w -> b v c h w", b=len(views))

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images [N, C, H, W] with the deficit, of the same shape and type, as a new tensor."""
        raise NotImplementedError

    def check(self, batch: Batch) -> None:
        """Says before training what would go wrong with batches like this one.

        Raises:
            UserError: the data lacks a view that this deficit names, or it cannot act on it.
        """
        self._look_for_views(batch)
        self(batch, torch.Generator(batch.views.device).manual_seed(0))

    def _look_for_views(self, batch: Batch) -> None:
        available = batch.views.shape[1]
        missing = [view for view in self.views or [] if view >= available]
        if missing:
            raise UserError(
                f"views={self.views} of {type(self).__name__} names view {missing[0]}, but the "
                f"data has {available} view{'s' * (available > 1)}, counted from 0."
            )

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them and as checkpoints tell one window from another."""
        return f"views={self.views}"


class DeficitSlot(nn.Module):
    """The place in a DataModule where deficits go in and come out again.

    A DataModule with an attribute ``deficits`` of this type calls it where its protocol has the
    deficit, and :class:`~critical_periods.callbacks.DeficitWindow` fills and empties it. Deficits
    that act on validation too have a list of their own, so a DataModule says when it validates.

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
        """Replaces what is in the slot; the first deficit acts first."""
        self.active = nn.ModuleList(deficits)
        self.in_validation = nn.ModuleList(in_validation)

    def forward(
        self, batch: Batch, generator: torch.Generator | None = None, validating: bool = False
    ) -> Batch:
        """The batch with all deficits that are in the slot, one after the other."""
        for deficit in self.in_validation if validating else self.active:
            batch = deficit(batch, generator)
        return batch
