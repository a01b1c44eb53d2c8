"""Weight decay towards the weights that training started from."""

from typing import Any

import pytorch_lightning as pl
import torch

from critical_periods.callbacks.initial_weights import InitialWeights
from critical_periods.callbacks.remedies.remedy import Remedy
from critical_periods.core.errors import UserError


class InitialWeightDecay(Remedy):
    """While it is open, (decay / 2) · |w - w_0|² is added to the loss, w_0 being the first weights.

    Its gradient decay · (w - w_0) is added to that of the loss before the optimiser's step, of all
    weights that have one, before gradients are clipped. Kumar, Marklund & Van Roy, *Maintaining
    Plasticity in Continual Learning via Regenerative Regularization* (2023), whose λ is decay / 2.
    Checkpoints hold the first weights, with which a run goes on.

    Args:
        decay: not negative, as ``weight_decay`` of torch's SGD counts it.
        onset: the first epoch with it.
        removal: the first one without it; ``None`` means to the end.

    Raises:
        UserError: decay is negative; before training, the first weights are not known.

    Example:
        >>> remedy = InitialWeightDecay(1e-3, onset=20, removal=40)
    """

    def __init__(self, decay: float = 1e-3, onset: int = 0, removal: int | None = None) -> None:
        super().__init__(onset, removal)
        if decay < 0:
            raise UserError(f"{decay=} of InitialWeightDecay must not be negative.")
        self.decay = decay
        self._start = InitialWeights(self)

    def state_dict(self) -> dict[str, Any]:
        """The first weights."""
        return self._start.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with them."""
        self._start.load_state_dict(state_dict)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Takes the weights that the run starts from."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._start.take(pl_module)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Checks that all of them are known."""
        self._start.check(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Adds its gradient to that of the loss."""
        if not self.acts:
            return
        stepped = {one for group in optimizer.param_groups for one in group["params"]}
        for weight, start in self._start.of(pl_module):
            if weight in stepped and weight.grad is not None:
                weight.grad.add_(weight.detach() - start, alpha=self.decay)
