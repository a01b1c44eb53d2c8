"""Label permutation: classes renamed by one fixed permutation."""

from collections.abc import Sequence

import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.randomness import global_seed
from critical_periods.deficits.deficit import Deficit


class LabelPermutation(Deficit):
    """Target k becomes pi(k), for one random permutation pi of the classes.

    Images are left as they are. Soft targets [B, K] are permuted alike; negative classes, which
    mark samples without a label, are left as they are.

    Source: Achille, Rovere & Soatto (ICLR 2019), where it leaves almost no loss.

    Args:
        seed: the permutation depends on it alone. By default the seed of the run
            (``seed_everything``), so every seed of a study has a permutation of its own.
        num_classes: K.
        views: whose targets are permuted: with views named, those samples alone whose
            ``target_view`` is among them; by default all.

    Raises:
        UserError: there are fewer than two classes, or (by ``check``) a target lies outside them.

    Example:
        >>> deficit = LabelPermutation(seed=0, num_classes=4)
        >>> images, whose = torch.zeros(4, 1, 1, 2, 2), torch.full((4,), -1)
        >>> batch = Batch(images, torch.arange(4), whose, torch.arange(4))
        >>> sorted(deficit(batch).target.tolist())
        [0, 1, 2, 3]
    """

    _shown = ("seed", "num_classes", "views")
    edits_target = True
    permutation: Tensor

    def __init__(
        self, seed: int | None = None, num_classes: int = 10, views: Sequence[int] | None = None
    ) -> None:
        super().__init__(views)
        if num_classes < 2:
            raise UserError(f"num_classes={num_classes} of LabelPermutation must be at least 2.")
        self.seed = global_seed() if seed is None else seed
        self.num_classes = num_classes
        drawn = torch.randperm(num_classes, generator=torch.Generator().manual_seed(self.seed))
        self.register_buffer("permutation", drawn)

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """A batch with its targets permuted."""
        permutation = self.permutation.to(batch.target.device)
        if batch.target.is_floating_point():
            renamed = torch.empty_like(batch.target)
            renamed[:, permutation] = batch.target
        else:
            try:
                renamed = permutation[batch.target.long().clamp(min=0)].to(batch.target.dtype)
            except IndexError:
                # The batch that was checked before training may lack a class.
                raise self._misfit(int(batch.target.max()) + 1) from None
            renamed = torch.where(batch.target < 0, batch.target, renamed)
        if self.views is not None:
            named = torch.tensor(self.views, device=batch.target_view.device)
            chosen = torch.isin(batch.target_view, named).view(-1, *[1] * (renamed.ndim - 1))
            renamed = torch.where(chosen, renamed, batch.target)
        return batch._replace(target=renamed)

    def check(self, batch: Batch) -> None:
        """Checks before training that all targets are among the permuted classes."""
        soft = batch.target.is_floating_point()
        if soft and batch.target.ndim < 2:
            raise UserError(
                f"LabelPermutation renames classes, but the targets are {batch.target.dtype} "
                f"{list(batch.target.shape)}, which are no class numbers; let the data give whole "
                "numbers, or choose LabelNoise."
            )
        found = batch.target.shape[-1] if soft else int(batch.target.max()) + 1
        if found > self.num_classes or (soft and found < self.num_classes):
            raise self._misfit(found)
        super().check(batch)

    def _misfit(self, found: int) -> UserError:
        return UserError(
            f"num_classes={self.num_classes} of LabelPermutation does not fit the data, whose "
            f"targets reach {found} classes; set it to the number of classes."
        )
