"""Shrink and perturb: all weights drawn towards zero, and a little noise."""

import pytorch_lightning as pl
import torch

from critical_periods.callbacks.network import network_of
from critical_periods.callbacks.remedies.remedy import Repeated, forget
from critical_periods.core.errors import UserError
from critical_periods.core.project import Project
from critical_periods.core.randomness import Stream, generator


class ShrinkPerturb(Repeated):
    """At ``onset`` each weight of the network becomes shrink · w + noise · ε, with ε ~ N(0, 1).

    So its mean is shrink · w and its standard deviation ``noise``: what was learnt stays in
    part, and gradients become large enough again to change it. Ash & Adams, *On Warm-Starting
    Neural Network Training* (NeurIPS 2020), start a new training from such weights; so optimisers
    forget what they remember of them, while the learning rate stays the run's. Buffers, such as the
    statistics of batch norm, go on.

    Args:
        shrink: λ, between 0 and 1.
        noise: σ, not negative.
        onset: the epoch that begins with it.
        removal: the first epoch that does not any more; of use with a cadence alone.
        every_n_epochs: it does so again every so many epochs; by default once.
        project: which module is the network (:class:`Project`).

    Raises:
        UserError: shrink or noise is out of its range, or see :class:`.Repeated`.

    Example:
        >>> remedy = ShrinkPerturb(shrink=0.5, noise=0.01, onset=20)
    """

    def __init__(
        self,
        shrink: float = 0.5,
        noise: float = 0.01,
        onset: int = 0,
        removal: int | None = None,
        every_n_epochs: int | None = None,
        project: Project | None = None,
    ) -> None:
        super().__init__(onset, removal, every_n_epochs)
        if not 0 <= shrink <= 1:
            raise UserError(f"{shrink=} of ShrinkPerturb must lie between 0 and 1.")
        if noise < 0:
            raise UserError(f"{noise=} of ShrinkPerturb must not be negative.")
        self.shrink, self.noise, self.project = shrink, noise, project

    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shrinks and perturbs."""
        for place, one in enumerate(network_of(pl_module, self.project).parameters()):
            key = self._seed, trainer.current_epoch, place
            # On the CPU, so that it is the same on every device.
            drawn = torch.randn(one.shape, generator=generator("cpu", Stream.PERTURBATION, *key))
            one.mul_(self.shrink).add_(drawn.to(one), alpha=self.noise)
            forget(trainer, one)
