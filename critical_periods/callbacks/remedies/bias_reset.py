"""Biases that begin anew after pre-training."""

import pytorch_lightning as pl

from critical_periods.callbacks.network import network_of
from critical_periods.callbacks.remedies.remedy import Repeated, forget
from critical_periods.core.errors import UserError
from critical_periods.core.project import Project


class BiasReset(Repeated):
    """At ``onset`` every bias of the network becomes ``value``, those of batch norm (β) too.

    The third of the three remedies of Zilly et al., *The Negative Pretraining Effect in Sequential
    Deep Learning and Three Ways to Fix It*: larger biases let units answer again that
    pre-training has silenced. Optimisers forget what they remember of them.

    Args:
        value: of the biases.
        onset: the epoch that begins with it; in a study's ``recovery`` counted from the removal.
        project: which module is the network (:class:`Project`).

    Raises:
        UserError: before training, the network has no bias.

    Example:
        >>> remedy = BiasReset(value=0.1, onset=20)
    """

    def __init__(self, value: float = 0.1, onset: int = 0, project: Project | None = None) -> None:
        super().__init__(onset)
        self.value, self.project = value, project

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks that there is a bias."""
        network = network_of(pl_module, self.project)
        if not any(name.endswith("bias") for name, _ in network.named_parameters()):
            raise UserError(
                f"BiasReset finds no bias in {type(network).__name__}, that is no parameter whose "
                "name ends in bias; leave it out."
            )

    def act(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Resets the biases."""
        for name, parameter in network_of(pl_module, self.project).named_parameters():
            if name.endswith("bias"):
                parameter.fill_(self.value)
                forget(trainer, parameter)
