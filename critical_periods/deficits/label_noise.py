"""Label noise: targets replaced by those of other samples, the control of dissociation."""

import torch

from critical_periods.core.batch import Batch
from critical_periods.core.whole_batch import WholeBatch
from critical_periods.deficits.cycle import check_others, check_probability, random_cycle
from critical_periods.deficits.deficit import Deficit


class LabelNoise(Deficit):
    """With probability p a sample has the target of another sample of its batch.

        P(target = k | sample of class c) = (1 - p) [k = c] + p P(another sample is of class k)

    The views are left as they are. Other samples are found by a random cycle through the batch:
    never the sample itself, but perhaps one of the same class. The targets are exactly as noisy as
    under :class:`~critical_periods.deficits.Dissociation` of the same p, so this control separates
    a critical period for fusing the views from the effect of noisy targets. A last batch of a
    single sample is left as it is.

    Source: after Kleinman, Achille & Soatto (CVPR 2023), section 4.3.

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

    _shown = ("p",)
    edits_target = True

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_probability(p, "LabelNoise")

    def check(self, batch: Batch) -> None:
        """Checks that there are other samples to take targets from."""
        super().check(batch)
        check_others(len(batch.target), "LabelNoise takes targets from other samples")

    def forward(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """A batch with some targets, [B] or [B, K], replaced."""
        whole, device = WholeBatch(len(batch.target), generator), batch.target.device
        if whole.rows < 2:
            return batch
        others = random_cycle(whole.rows, whole.generator, device)
        is_other = torch.rand(whole.rows, generator=whole.generator, device=device) < self.p
        own = torch.arange(whole.rows, device=device)
        source = whole.part(torch.where(is_other, others, own))
        return batch._replace(target=whole.gather(batch.target)[source])
