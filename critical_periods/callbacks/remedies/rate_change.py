"""Another learning rate after pre-training."""

import pytorch_lightning as pl

from critical_periods.callbacks.remedies.remedy import Repeated
from critical_periods.core.errors import UserError
from critical_periods.core.internals import scale_rates


class RateChange(Repeated):
    """At ``onset`` the learning rate becomes ``factor`` times what it is, and its schedule goes on.

    The first of the three remedies of Zilly et al., *The Negative Pretraining Effect in Sequential
    Deep Learning and Three Ways to Fix It*: a rate that has gone down in pre-training may be too
    small for what comes then. Rates of all parameter groups, and those that schedulers begin from,
    are multiplied.

    Args:
        factor: above 0.
        onset: the epoch that begins with it; in a study's ``recovery`` counted from the removal.

    Raises:
        UserError: the factor is not positive.

    Example:
        >>> remedy = RateChange(factor=3.0, onset=20)
    """

    def __init__(self, factor: float = 3.0, onset: int = 0) -> None:
        super().__init__(onset)
        if not 0 < factor < float("inf"):
            raise UserError(f"{factor=} of RateChange must be above 0.")
        self.factor = factor

    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Multiplies the rates."""
        scale_rates(trainer, self.factor)
