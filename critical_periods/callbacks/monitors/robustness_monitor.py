"""Accuracy under common corruptions of the images."""

from itertools import product

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.randomness import FIXED_SEED, Stream, generator
from critical_periods.deficits.corruptions import CORRUPTIONS, Corruption, corrupted


class RobustnessMonitor(Monitor):
    """Logs the accuracy of a classifier on images that are corrupted in its inputs.

    ``robustness/<kind>/<strength>`` of each kind (noise, blur, contrast, pixelation) at strengths
    1 to 5 (:func:`.corrupted`), their means ``robustness/<kind>``, and the mean of all,
    ``robustness/mean``. The noise is the same at each measurement. It costs twenty passes of the
    samples. Results of a study have the means as columns.

    Args:
        every_n_epochs: the cadence; the last epoch is always measured, and by default it alone.
        split: which samples.
        samples: how many, over all processes together; all by default.
        project: where things are in a third party's project (:class:`Project`).

    Raises:
        UserError: before training, its inputs are no images or it does not classify.

    Example:
        >>> monitor = RobustnessMonitor(samples=1000)
    """

    target_needed = True
    has_likelihood = True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that there are classes to be right about, before outputs are asked to suit."""
        if self.likelihood != "categorical":
            raise UserError(
                "RobustnessMonitor measures accuracies, not outputs of the likelihood "
                f"{self.likelihood!r}; leave it out."
            )
        super().setup(trainer, pl_module, stage)

    def measure_example(self, network: nn.Module, example: Batch) -> None:
        """Corrupts two samples in each way."""
        if any(view.ndim != 4 for view in example.inputs) or example.target.ndim != 1:
            raise UserError(
                "RobustnessMonitor corrupts images [B, C, H, W] of one class each, but the inputs "
                f"are {[list(view.shape) for view in example.inputs]} and the targets "
                f"{list(example.target.shape)}; leave it out."
            )
        for kind in CORRUPTIONS:
            _right(network, example, kind, 5, 0)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures and logs the accuracies."""
        network = self.network_of(pl_module)
        ways = list(product(CORRUPTIONS, range(1, 6)))
        counts = torch.zeros(len(ways) + 1, dtype=torch.int64, device=pl_module.device)
        for number, batch in enumerate(self.batches(trainer)):
            place = number * trainer.world_size + trainer.global_rank
            right = [_right(network, batch, kind, one, place) for kind, one in ways]
            counts += torch.stack([*right, torch.tensor(len(batch.index), device=counts.device)])
        *sums, total = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        shares = {way: one / total for way, one in zip(ways, sums, strict=True)}
        for (kind, strength), share in shares.items():
            log_scalar(pl_module, f"robustness/{kind}/{strength}", torch.tensor(share))
        for kind in CORRUPTIONS:
            mean = sum(shares[kind, strength] for strength in range(1, 6)) / 5
            log_scalar(pl_module, f"robustness/{kind}", torch.tensor(mean))
        mean = sum(shares.values()) / len(shares)
        log_scalar(pl_module, "robustness/mean", torch.tensor(mean))


def _right(network: nn.Module, batch: Batch, kind: Corruption, strength: int, place: int) -> Tensor:
    """How many samples of a batch are classified right, under a corruption."""
    key = FIXED_SEED, place, CORRUPTIONS.index(kind), strength
    draws = generator(batch.target.device, Stream.CORRUPTION, *key)
    views = [corrupted(view, kind, strength, draws) for view in batch.inputs]
    return (network(*views).argmax(1) == batch.target).sum()
