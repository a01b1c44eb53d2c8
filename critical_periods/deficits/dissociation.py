"""Dissociation: both eyes see well, but not the same thing."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.deficits.cycle import random_cycle
from critical_periods.deficits.deficit import Deficit


class Dissociation(Deficit):
    """Views come from other images of the batch, and the target is that of one of them.

    One view stays where it is; each of the others comes from another image (a random cycle through
    the batch, so never from the same one). With probability ``p`` a sample's target is the class of
    the image that a moved view came from, else that of the view that stayed; ``target_view`` says
    whose it is, so that a network with a head for each view trains that one. Each view still tells
    its own class, but the two together tell nothing about one another: strabismus. Under DDP each
    process permutes its own part of the batch. (Kleinman, Achille & Soatto 2023, section 4.2 and
    A.6, with p = 0.5; there the right view moves.)

    A last batch of a single sample has no other image and stays as it is.

    Args:
        p: the probability that the target is a moved view's; among several, each is as likely.
        views: the views that move; all but one. By default all but view 0, the left one.

    Raises:
        UserError: ``p`` is no probability; by ``check``, there is not exactly one view that stays,
            or batches have one sample.

    Example:
        >>> images = torch.arange(4.0).view(4, 1, 1, 1, 1).expand(4, 2, 1, 1, 1)
        >>> batch = Batch(images, torch.arange(4), torch.full((4,), -1), torch.arange(4))
        >>> dissociated = Dissociation()(batch, torch.Generator().manual_seed(0))
        >>> left, right = dissociated.views.flatten(2).squeeze(2).long().unbind(1)
        >>> left.tolist(), bool((left == right).any())
        ([0, 1, 2, 3], False)
        >>> whose = dissociated.target_view
        >>> torch.equal(dissociated.target, torch.where(whose == 0, left, right))
        True
    """

    edits_target = True

    def __init__(self, p: float = 0.5, views: Sequence[int] | None = None) -> None:
        super().__init__(views)
        if not 0 <= p <= 1:
            raise UserError(f"p={p} of Dissociation must be a probability, from 0 to 1.")
        self.p = p

    def check(self, batch: Batch) -> None:
        """Looks for the one view that stays, and for other images to take views from."""
        super().check(batch)
        if len(batch.target) < 2:
            raise UserError(
                "Dissociation takes views from other images of a batch, but batches have one "
                "sample; choose a batch_size of at least 2."
            )

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """The batch with views that do not belong together.

        Args:
            batch: any batch of at least two views; views [B, V, C, H, W].
            generator: on the device of the batch.

        Raises:
            UserError: there is not exactly one view that stays.
        """
        moved, stays = self._roles(batch)
        size, device = len(batch.target), batch.views.device
        if size < 2:
            return batch
        views = batch.views.clone()
        sources = torch.arange(size, device=device).repeat(views.shape[1], 1)
        for view in moved:
            sources[view] = random_cycle(size, generator, device)
            views[:, view] = batch.views[sources[view], view]
        draw = torch.rand(size, generator=generator, device=device)
        chosen = torch.tensor(moved, device=device)[
            torch.randint(len(moved), (size,), generator=generator, device=device)
        ]
        whose = torch.where(draw < self.p, chosen, stays)
        source = sources.gather(0, whose[None])[0]
        return batch._replace(views=views, target=batch.target[source], target_view=whose)

    def _roles(self, batch: Batch) -> tuple[list[int], int]:
        self._look_for_views(batch)
        available = range(batch.views.shape[1])
        moved = list(available[1:]) if self.views is None else self.views
        staying = [view for view in available if view not in moved]
        if len(staying) != 1 or not moved:
            raise UserError(
                f"Dissociation moves views {moved} of the {len(available)} that the data has; "
                "exactly one must stay in place, and at least one move."
            )
        return moved, staying[0]

    def extra_repr(self) -> str:
        """The settings."""
        return f"p={self.p}, {super().extra_repr()}"
