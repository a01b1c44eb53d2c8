"""The matrix completion task: a product of matrices is fitted to a matrix's observed entries."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.trainer import datamodule_of
from critical_periods.linear.divergence import check_finite
from critical_periods.linear.multi_path_linear import MultiPathLinear
from critical_periods.linear.theory.layers import layer_gradients, partial_products


class MatrixCompletionTask(pl.LightningModule):
    """Full-batch gradient descent on N observed entries of a matrix M, as a product of D layers.

        L = 1/(2N) Σ_(i,j) observed (W_ij - M_ij)²,   W = W_D … W_1

    An epoch is a number of iterations in a loop of matrix products alone: 0.2 ms an iteration for
    three layers of 100x100 on one core. To Lightning, and so to callbacks, an epoch is one step.

    Logs, once an epoch, ``train/loss`` of the last iteration and ``val/error`` (or ``test/error``),
    the relative squared error |W - M|² / |M|² over all entries of the matrix without deficits; 1
    for W = 0. Predicts the completed matrix.

    Source: Kleinman, Achille & Soatto (ICLR 2024, arXiv 2308.12221): up to 130,000 iterations of
    0.2.

    Args:
        network: of one path, with as many inputs and outputs as the matrix has columns and rows.
        learning_rate: of each iteration.
        iterations: in an epoch.

    Raises:
        UserError: a setting is not positive or the network has several paths; before training,
            its matrix has another size than that of the data; at the end of an epoch, the loss is
            not finite.

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
        # Lightning's automatic step around each iteration would take longer than the iteration.
        self.automatic_optimization = False

    def setup(self, stage: str) -> None:
        """Checks that the network's matrix has the size of the data's."""
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
        # The optimiser takes the last step: Lightning counts, and saves checkpoints, by its steps.
        loss, slopes = gradients(layers, matrix, weight)
        for layer, slope in zip(layers, slopes, strict=True):
            layer.grad = slope
        optimizer: Any = self.optimizers()
        optimizer.step()
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=1)
        self._check_finite(loss)

    @torch.no_grad()
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The relative squared error of all entries."""
        self._check_finite(self._error("val", batch))

    @torch.no_grad()
    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The relative squared error of the same matrix, the only one there is."""
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

    The gradient in layer l is (W_D … W_(l+1))^T E (W_(l-1) … W_1)^T with E = weight · (W - M); the
    weight of an entry that is not observed is 0. It takes a third of the time of autograd.
    """
    products = partial_products(layers)
    residual = products[-1] - matrix
    error = residual * weight
    return (error * residual).sum() / 2, layer_gradients(layers, products[:-1], error)
