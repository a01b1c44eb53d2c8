"""Matrix completion: a product of matrices learns the entries that it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.trainer import datamodule_of
from critical_periods.linear.multi_path_linear import MultiPathLinear
from critical_periods.linear.regression import check_finite


class MatrixCompletionTask(pl.LightningModule):
    """Gradient descent on the observed entries of a matrix, as a product of D layers.

        L = 1/(2N) Σ_(i,j) observed (W_ij - M_ij)²,   W = W_D … W_1

    Plain full-batch gradient descent (Kleinman, Achille & Soatto, ICLR 2024, arXiv 2308.12221: at
    0.2, for up to 130,000 iterations). An epoch is a number of iterations in a row, in a loop of
    matrix products alone: 0.2 ms an iteration for three layers of 100x100 on one core. To
    Lightning, and so to callbacks, an epoch is one step.

    Logs, once an epoch, ``train/loss`` of the last iteration and ``val/error`` (tested,
    ``test/error``), the relative squared error of the whole matrix that is shown clean,
    |W - M|² / |M|²: 1 for W = 0. It predicts the completed matrix.

    Args:
        network: of one path, with as many inputs and outputs as the matrix has columns and rows.
        learning_rate: of each iteration.
        iterations: in an epoch.

    Raises:
        UserError: a setting is not positive or the network has several paths; before training,
            its matrix has another size than that of the data; at the end of an epoch, the loss is
            no longer finite.

    Example:
        >>> task = MatrixCompletionTask(MultiPathLinear(num_paths=1, inputs=100, outputs=100))
        >>> task.matrix().shape
        torch.Size([100, 100])
    """

    def __init__(
        self, network: MultiPathLinear, learning_rate: float = 0.2, iterations: int = 1000
    ) -> None:
        super().__init__()
        for name, value in (("learning_rate", learning_rate), ("iterations", iterations)):
            if not value > 0:
                raise UserError(f"{name}={value} of MatrixCompletionTask must be positive.")
        if len(network.paths) != 1:
            raise UserError(
                f"num_paths={len(network.paths)} of the network of MatrixCompletionTask must be 1."
            )
        self.network = network
        self.learning_rate = learning_rate
        self.iterations = iterations
        # Lightning's own step around each iteration would take longer than the iteration.
        self.automatic_optimization = False

    def setup(self, stage: str) -> None:
        """Compares the network's matrix with that of the data."""
        size = getattr(datamodule_of(self.trainer), "size", None)
        shape = self.network.outputs, self.network.inputs
        if size is not None and shape != (size, size):
            raise UserError(
                f"the network of MatrixCompletionTask is a matrix of {shape[0]}x{shape[1]}, but "
                f"that of the data is {size}x{size}; set inputs and outputs to {size}."
            )

    @torch.no_grad()
    def matrix(self) -> Tensor:
        """W, the product of the layers."""
        return self.network.maps()[0]

    @torch.no_grad()
    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """The iterations of an epoch."""
        matrix = batch.views[0, 0, 0]
        weight = torch.zeros_like(matrix)
        weight.view(-1)[batch.target[0]] = 1 / batch.target.shape[1]
        layers = list(self.network.parameters())
        for _ in range(self.iterations - 1):
            _, slopes = gradients(layers, matrix, weight)
            for layer, slope in zip(layers, slopes, strict=True):
                layer.sub_(slope, alpha=self.learning_rate)
        # The last is the optimiser's, as Lightning counts, and keeps checkpoints, by its steps.
        loss, slopes = gradients(layers, matrix, weight)
        for layer, slope in zip(layers, slopes, strict=True):
            layer.grad = slope
        optimizer: Any = self.optimizers()
        optimizer.step()
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=1)
        self._check_finite(loss)

    @torch.no_grad()
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The error of the whole matrix."""
        error = self._error("val", batch)
        # The first look at what the last step left. Who only validates is told what there is.
        if self.trainer.state.fn == "fit":
            self._check_finite(error)

    @torch.no_grad()
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same; there is no other matrix to test on."""
        self._error("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The completed matrix, W for the one sample of the batch, [1, n, n]."""
        return self.matrix()[None]

    def _error(self, stage: str, batch: Batch) -> Tensor:
        matrix = batch.views[0, 0, 0]
        error = (self.matrix() - matrix).square().sum() / matrix.square().sum()
        self.log(f"{stage}/error", error, on_step=False, on_epoch=True, batch_size=1)
        return error

    def _check_finite(self, loss: Tensor) -> None:
        check_finite(self, loss, f"learning_rate={self.learning_rate}")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


def gradients(
    layers: Sequence[Tensor], matrix: Tensor, weight: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The loss ½ Σ weight · (W_D … W_1 - M)² and its gradient in every layer.

    That in layer l is (W_D … W_(l+1))^T E (W_(l-1) … W_1)^T with E = weight · (W - M). Written out,
    it takes a third of the time that autograd takes.

    Args:
        layers: W_1, …, W_D.
        matrix: M.
        weight: of each entry; 0 where it is not observed.

    Returns:
        The loss, and one matrix a layer.

    Example:
        >>> loss, (first, second) = gradients(
        ...     [torch.eye(2), 2 * torch.eye(2)], torch.zeros(2, 2), torch.ones(2, 2)
        ... )
        >>> loss, second
        (tensor(4.), tensor([[2., 0.],
                [0., 2.]]))
    """
    before = [layers[0]]
    for layer in layers[1:]:
        before.append(layer @ before[-1])
    residual = before.pop() - matrix
    error = residual * weight
    loss = (error * residual).sum() / 2
    slopes = []
    for layer, below in zip(layers[:0:-1], reversed(before), strict=True):
        slopes.append(error @ below.T)
        error = layer.T @ error
    return loss, [error, *reversed(slopes)]
