"""Label noise: a world in which things are called by other things' names, now this, now that."""

from __future__ import annotations

import torch

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.deficits.cycle import random_cycle
from critical_periods.deficits.deficit import Deficit


class LabelNoise(Deficit):
    """With probability p a sample has the target of another sample of its batch.

    The views stay as they are and stay together. The targets are exactly as noisy as under
    :class:`~critical_periods.deficits.Dissociation` of the same p, where a sample's target is that
    of another image with probability p too (drawn alike: by one random cycle through the batch, so
    never the sample itself, but perhaps one of the same class):

        P(target = k | sample of class c) = (1 - p) [k = c] + p P(another sample is of class k)

    This is the control that tells a critical period for fusing the views from the mere effect of
    noisy targets (after Kleinman, Achille & Soatto 2023, section 4.3).

    A last batch of a single sample has no other sample and stays as it is.

    Args:
        p: the probability that the target is another sample's.

    Raises:
        UserError: ``p`` is no probability; by ``check``, batches have one sample.

    Example:
        >>> images, whose = torch.zeros(4, 2, 1, 2, 2), torch.full((4,), -1)
        >>> batch = Batch(images, torch.arange(4), whose, torch.arange(4))
        >>> noisy = LabelNoise(p=1.0)(batch, torch.Generator().manual_seed(0))
        >>> sorted(noisy.target.tolist()), bool((noisy.target == batch.target).any())
        ([0, 1, 2, 3], False)
    """

    edits_target = True

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise UserError(f"p={p} of LabelNoise must be a probability, from 0 to 1.")
        self.p = p

    def check(self, batch: Batch) -> None:
        """Looks for other samples to take targets from."""
        super().check(batch)
        if len(batch.target) < 2:
            raise UserError(
                "LabelNoise takes targets from other samples of a batch, but batches have one "
                "sample; choose a batch_size of at least 2."
            )

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """The batch with some targets replaced.

        Args:
            batch: any batch; targets [B] or [B, K].
            generator: on the device of the batch.
        """
        size, device = len(batch.target), batch.target.device
        if size < 2:
            return batch
        others = random_cycle(size, generator, device)
        is_other = torch.rand(size, generator=generator, device=device) < self.p
        own = torch.arange(size, device=device)
        return batch._replace(target=batch.target[torch.where(is_other, others, own)])

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"p={self.p}"
