"""Regression: half the summed squares, the loss of the theory of deep linear networks."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.trainer import datamodule_of
from critical_periods.linear.multi_path_linear import MultiPathLinear
from critical_periods.models.network import Network
from critical_periods.tasks.optimizers import build_optimizer
from critical_periods.tasks.task import Task

_REMEDY = "the learning rate, lr of the optimizer"


def _paper_optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)


class RegressionTask(Task):
    """Half the summed squared errors of a batch, L = ½ Σ_b |f(x_b) - y_b|².

    Logs ``train/loss``, ``val/loss`` and ``test/loss``, summed over the batch, averaged over
    batches. With a batch of everything, one epoch is one step of full-batch gradient descent, and
    epochs times learning rate are the time of gradient flow (Kleinman, Achille & Soatto, ICLR 2024,
    arXiv 2308.12221: 1,000 steps of 0.01).

    Random numbers drawn while training are seeded anew at each batch from (seed, epoch, batch,
    rank), so that a resumed run draws what an uninterrupted one would have drawn.

    Args:
        network: takes one tensor a view and returns outputs [B, K].
        optimizer: from parameters to an optimiser; by default SGD at 0.01.
        aligned: K_0, with which every mode of every path of a ``MultiPathLinear`` starts, aligned
            with the task of a ``HierarchyDataModule``; by default the network starts as it is.

    Raises:
        UserError: before training, ``aligned`` is set, but the network or the data is another; at
            the end of an epoch, the loss is no longer finite.

    Example:
        >>> task = RegressionTask(MultiPathLinear(depth=2), aligned=0.01)
        >>> task(torch.eye(8)).shape
        torch.Size([8, 15])
    """

    def __init__(
        self,
        network: Network | nn.Module,
        optimizer: OptimizerCallable = _paper_optimizer,
        aligned: float | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimizer = optimizer
        self.aligned = aligned

    def setup(self, stage: str) -> None:
        """Aligns the network with the task; a checkpoint is loaded after this."""
        if stage == "fit" and self.aligned is not None:
            self._align(self.aligned)

    def _align(self, strength: float) -> None:
        data = datamodule_of(self.trainer)
        if not isinstance(self.network, MultiPathLinear) or not hasattr(data, "task_map"):
            raise UserError(
                f"aligned={strength} of RegressionTask needs a MultiPathLinear and a "
                f"HierarchyDataModule, but this run has {type(self.network).__name__} and "
                f"{type(data).__name__}; leave it out, or use those."
            )
        self.network.align(data.task_map(), strength)

    def forward(self, *views: Tensor) -> Tensor:
        """Outputs [B, K] of one tensor a view."""
        outputs: Tensor = self.network(*views)
        return outputs

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Half the summed squares of the batch."""
        return self._loss("train", batch)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Looks at the end of an epoch whether the training has diverged."""
        # Weights that are no longer finite stay so: to look at the last batch is enough.
        if self.trainer.is_last_batch:
            check_finite(self, outputs["loss"], _REMEDY)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on the validation split."""
        loss = self._loss("val", batch)
        # The first look at what the last step left. Who only validates is told what there is.
        if self.trainer.state.fn == "fit":
            check_finite(self, loss, _REMEDY)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on the test split."""
        self._loss("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Outputs [B, K]."""
        return self(*batch.views.unbind(1))

    def _loss(self, stage: str, batch: Batch) -> Tensor:
        error = self(*batch.views.unbind(1)) - batch.target
        loss = error.square().sum() / 2
        self.log_mean(f"{stage}/loss", loss.detach(), 1, sync_dist=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser.

        Raises:
            UserError: a setting of it has no meaning, such as a negative rate.
        """
        return build_optimizer(self.optimizer, self.parameters())


def check_finite(task: pl.LightningModule, loss: Tensor, rate: str) -> None:
    """Ends a training that has diverged, lest it count as done.

    Args:
        task: which is trained.
        loss: of its network as it is.
        rate: what its user calls the learning rate.

    Raises:
        UserError: the loss is not finite.

    Example:
        >>> check_finite(RegressionTask(MultiPathLinear()), torch.tensor(float("nan")), "lr")
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: the loss of RegressionTask is nan at the end of \
epoch 0, as its steps are too long; lower lr.
    """
    if not loss.isfinite():
        raise UserError(
            f"the loss of {type(task).__name__} is {loss.item()} at the end of epoch "
            f"{task.current_epoch}, as its steps are too long; lower {rate}."
        )
