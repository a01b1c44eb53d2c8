"""From the source of a pre-training to the target in steps."""

import pytorch_lightning as pl

from critical_periods.callbacks.remedies.remedy import Remedy
from critical_periods.callbacks.windows.source_window import SourceWindow
from critical_periods.callbacks.windows.window import windows
from critical_periods.core.errors import UserError


class GradualChange(Remedy):
    """After a :class:`.SourceWindow` the target comes in little by little.

    In the k-th of the n epochs from ``onset`` to ``removal - 1`` each sample of the target is
    replaced, with probability 1 - k / (n + 1), by a random one of the source that was trained on
    last; which are, depends on (seed, epoch, index). The second of the three remedies of Zilly et
    al., *The Negative Pretraining Effect in Sequential Deep Learning and Three Ways to Fix It*: no
    jump from task to task. Without a source before it, nothing changes.

    Args:
        onset: the first mixed epoch; in a study's ``recovery`` counted from the removal, as is
        removal: the first epoch on the target alone.

    Raises:
        UserError: there is no removal, or it is no later than the onset; before training, the run
            has no SourceWindow.

    Example:
        >>> remedy = GradualChange(onset=20, removal=23)
        >>> [remedy.source_share(epoch) for epoch in range(19, 24)]
        [0.0, 0.75, 0.5, 0.25, 0.0]
    """

    def __init__(self, onset: int = 0, removal: int | None = None) -> None:
        super().__init__(onset, removal)
        if removal is None or removal == onset:
            raise UserError(
                f"removal={removal} of GradualChange must be an epoch after onset={onset}: the "
                "first on the target alone."
            )

    def source_share(self, epoch: int) -> float:
        """The share of the source's samples in an epoch."""
        assert self.removal is not None
        steps = self.removal - self.onset + 1
        return 1 - (epoch - self.onset + 1) / steps if self.is_open(epoch) else 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that the run has a source."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and not windows(trainer, SourceWindow):
            raise UserError(
                "GradualChange leads from a source to the target, but this run has no "
                "SourceWindow; add one, or leave it out."
            )
