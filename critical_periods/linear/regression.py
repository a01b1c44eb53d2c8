"""The regression task: half the summed squared errors, as in the theory of deep linear networks."""

from typing import Any

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from critical_periods.core.batch import Batch
from critical_periods.core.trainer import datamodule_of
from critical_periods.linear.divergence import check_finite
from critical_periods.linear.multi_path_linear import paths_and_task
from critical_periods.models.network import Network
from critical_periods.tasks.optimizers import build_optimizer
from critical_periods.tasks.task import Task

_REMEDY = "the learning rate, lr of the optimizer"


def _paper_optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01)


class RegressionTask(Task):
    """Trains a network on half the summed squared errors of a batch, L = ½ Σ_b |f(x_b) - y_b|².

    Logs ``train/loss``, ``val/loss`` and ``test/loss``: L averaged over batches. With the full data
    set in one batch, an epoch is one step of full-batch gradient descent, and epochs times learning
    rate are the time of gradient flow. Predicts outputs [B, K].

    Source: Kleinman, Achille & Soatto (ICLR 2024, arXiv 2308.12221): 1,000 steps of 0.01.

    Args:
        network: takes one tensor a view and returns outputs [B, K].
        optimizer: from parameters to an optimiser; by default SGD at 0.01.
        aligned: K_0, with which every mode of every path of a ``MultiPathLinear`` starts, aligned
            with the task of a ``HierarchyDataModule``; by default the network starts as it is.

    Raises:
        UserError: before training, ``aligned`` is set, but the network or the data is another; at
            the end of an epoch, the loss is not finite.

    Example:
        >>> from critical_periods.linear import MultiPathLinear
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
            owner = f"aligned={self.aligned} of RegressionTask"
            network, task = paths_and_task(owner, self.network, datamodule_of(self.trainer))
            network.align(task, self.aligned)

    def forward(self, *views: Tensor) -> Tensor:
        """Outputs [B, K] of one tensor a view."""
        outputs: Tensor = self.network(*views)
        return outputs

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Half the summed squares of the batch."""
        return self._loss("train", batch)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Checks after the last batch of an epoch that the loss is finite."""
        # Weights that are not finite remain so, so checking the last batch is enough.
        if self.trainer.is_last_batch:
            check_finite(self, outputs["loss"], _REMEDY)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Half the summed squares on the validation split."""
        check_finite(self, self._loss("val", batch), _REMEDY)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Half the summed squares on the test split."""
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
        """The optimiser; a UserError if a setting of it has no meaning, such as a negative rate."""
        return build_optimizer(self.optimizer, self.parameters())
