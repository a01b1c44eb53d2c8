"""Dissociation: the views of a sample come from different images, the model of strabismus."""

from collections.abc import Sequence

import torch

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.whole_batch import WholeBatch
from critical_periods.deficits.cycle import check_others, check_probability, random_cycle
from critical_periods.deficits.deficit import Deficit


class Dissociation(Deficit):
    """Each view but one is moved to another sample; the target is that of one of the views.

    Moved views go along a random cycle through the batch, so each comes from another image. The
    target, and ``target_view``, are those of the image of a moved view with probability ``p`` and
    of the view that stays otherwise. So each view predicts its own class, but the views are
    independent of each other. Under DDP the cycle goes through the parts of all processes. A last
    batch of a single sample is left as it is.

    Source: Kleinman, Achille & Soatto (CVPR 2023), section 4.2 and A.6, with p = 0.5 and the right
    view moved.

    Args:
        p: the probability that the target is a moved view's; among several, each is as likely.
        views: the views that are moved, all but one; by default all but view 0, the left one.

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

    _shown = ("p", "views")
    edits_target = True

    def __init__(self, p: float = 0.5, views: Sequence[int] | None = None) -> None:
        super().__init__(views)
        self.p = check_probability(p, "Dissociation")

    def check(self, batch: Batch) -> None:
        """Checks that one view stays, and that there are other images to take views from."""
        super().check(batch)
        check_others(len(batch.target), "Dissociation takes views from other images")

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """A batch with views [B, V, C, H, W] of different images.

        Raises:
            UserError: there is not exactly one view that stays.
        """
        moved, stays = self._roles(batch)
        whole, device = WholeBatch(len(batch.target), generator), batch.target.device
        size = whole.rows
        if size < 2:
            return batch
        sources = torch.arange(size, device=device).repeat(len(batch.inputs), 1)
        for view in moved:
            sources[view] = random_cycle(size, whole.generator, device)
        draw = torch.rand(size, generator=whole.generator, device=device)
        place = torch.randint(len(moved), (size,), generator=whole.generator, device=device)
        whose = torch.where(draw < self.p, torch.tensor(moved, device=device)[place], stays)
        source = whole.part(sources.gather(0, whose[None])[0])
        views = [
            whole.gather(view)[whole.part(sources[number])] if number in moved else view
            for number, view in enumerate(batch.inputs)
        ]
        return batch.with_inputs(views)._replace(
            target=whole.gather(batch.target)[source], target_view=whole.part(whose)
        )

    def _roles(self, batch: Batch) -> tuple[list[int], int]:
        self._check_views(batch)
        available = range(len(batch.inputs))
        moved = list(available[1:]) if self.views is None else self.views
        staying = [view for view in available if view not in moved]
        if len(staying) != 1 or not moved:
            raise UserError(
                f"Dissociation moves views {moved} of the {len(available)} that the data has; "
                "exactly one must stay in place, and at least one move."
            )
        return moved, staying[0]
