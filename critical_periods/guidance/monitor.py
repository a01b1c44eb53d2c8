"""What becomes of an agent's networks: dormant units, and the critic's Fisher trace."""

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from critical_periods.callbacks.monitors.monitor import Monitor, log_scalar
from critical_periods.callbacks.monitors.plasticity_monitor import NONLINEAR
from critical_periods.callbacks.samples import shared_samples
from critical_periods.core.errors import UserError
from critical_periods.guidance.actor_critic import ActorCriticTask
from critical_periods.metrics.fisher import FisherTrace
from critical_periods.metrics.functional.plasticity import dormant


class AgentMonitor(Monitor):
    """Logs ``agent/policy_dormant``, ``agent/critic_dormant`` and ``agent/critic_fisher``.

    A unit is dormant whose mean |activation| over the samples is at most ``threshold`` times the
    mean of its layer (:func:`dormant`); the share is over the units behind all activations of a
    network. The Fisher trace of the critic is that of a Gaussian of unit variance around its value,
    E_x |∇_w V(x)|²; that of the policy is a
    :class:`~critical_periods.callbacks.FisherMonitor`'s.

    Args:
        every_n_epochs: the cadence; the last epoch is always measured.
        samples: how many, over all processes together.
        threshold: τ of dormant units.

    Raises:
        UserError: before training, the model is no ``ActorCriticTask``, or a network of it has no
            activation function among its modules.

    Example:
        >>> monitor = AgentMonitor(every_n_epochs=5, samples=100)
    """

    def __init__(
        self, every_n_epochs: int | None = 1, samples: int | None = 200, threshold: float = 0.025
    ) -> None:
        super().__init__(every_n_epochs, "train", samples)
        self.threshold = threshold

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Checks that there is an agent, and activations to measure."""
        super().setup(trainer, pl_module, stage)
        if not isinstance(pl_module, ActorCriticTask):
            raise UserError(
                "AgentMonitor measures the policy and the critic of an ActorCriticTask, and the "
                f"model is a {type(pl_module).__name__}; leave it out."
            )
        for name, network in (("network", pl_module.network), ("critic", pl_module.critic)):
            if not _activations(network):
                raise UserError(
                    "AgentMonitor looks for activation functions among the modules of the "
                    f"{name} of ActorCriticTask, {type(network).__name__}, which has none; use "
                    "modules such as nn.ReLU, or leave it out."
                )

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measures both networks on the same samples."""
        assert isinstance(pl_module, ActorCriticTask)
        trace = FisherTrace(pl_module.critic, likelihood="gaussian")
        for batch in self.batches(trainer):
            trace.update(*batch.inputs)
        seen = shared_samples(trainer, self.split, self.samples).inputs[0]
        log_scalar(pl_module, "agent/critic_fisher", trace.compute()[0])
        for name, network in (("policy", pl_module.network), ("critic", pl_module.critic)):
            units = [dormant(mean, self.threshold) for mean in mean_activations(network, seen)]
            log_scalar(pl_module, f"agent/{name}_dormant", torch.cat(units).float().mean())


def _activations(network: nn.Module) -> list[nn.Module]:
    return [part for part in network.modules() if isinstance(part, NONLINEAR)]


def mean_activations(network: nn.Module, seen: Tensor) -> list[Tensor]:
    """The mean |activation| of each unit behind each activation function, [units]."""
    means: list[Tensor] = []

    def keep(module: nn.Module, args: object, output: Tensor) -> None:
        means.append(output.detach().abs().mean(0).flatten())

    hooks = [part.register_forward_hook(keep) for part in _activations(network)]
    try:
        network(seen)
    finally:
        for hook in hooks:
            hook.remove()
    return means
