"""A linear network of any depth, and its training by full-batch gradient descent."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.checks import Array, checked_matrix, checked_times
from critical_periods.linear.theory.correlations import Dropped, stretches
from critical_periods.linear.theory.flow import descent
from critical_periods.linear.theory.layers import checked_layers, product


class DeepLinear(nn.Module):
    """A linear network of D weight matrices without biases: y = WD … W2 W1 x.

    It computes what a single matrix W computes, but learns differently: the layers multiply, so
    the weights of sensors that share a hidden layer depend on each other.

    Source: Saxe et al. (2013); Kleinman, Achille & Soatto (CVPR 2023), section 2.

    Args:
        starts: the weights from the first layer to the last, [width out, width in] each; those of
            :func:`balanced_starts` and :func:`random_starts` make it a float64 network.

    Attributes:
        layers: the weights, an ``nn.ParameterList``.

    Raises:
        UserError: there are no weights, one is no matrix, or one layer does not fit the next.

    Example:
        >>> network = DeepLinear([[[1.0, 2.0]], [[3.0], [4.0]]])
        >>> network(torch.tensor([[1.0, 1.0]]))
        tensor([[ 9., 12.]], grad_fn=<MmBackward0>)
        >>> network.weights
        tensor([[3., 6.],
                [4., 8.]], grad_fn=<MmBackward0>)
    """

    def __init__(self, starts: Sequence[ArrayLike | Tensor]) -> None:
        super().__init__()
        tensors = [torch.as_tensor(start) for start in starts]
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if not shapes or any(len(shape) != 2 for shape in shapes):
            raise UserError(f"starts have shapes {shapes}; give a matrix for each layer.")
        if any(below[0] != above[1] for below, above in pairwise(shapes)):
            raise UserError(f"starts have shapes {shapes}; each layer takes what the last gives.")
        # Times 1.0 copies, and makes numbers that can be trained of integers.
        self.layers = nn.ParameterList([tensor * 1.0 for tensor in tensors])

    @property
    def weights(self) -> Tensor:
        """W = WD … W1, from sensors to tasks, [outputs, inputs]."""
        return product(list(self.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [B, outputs] of inputs [B, inputs]."""
        for layer in self.layers:
            x = x @ layer.T
        return x


@torch.no_grad()
def gradient_descent(
    network: DeepLinear,
    sigma: ArrayLike,
    times: ArrayLike,
    dropped: Sequence[Dropped] = (),
    step: float = 1e-3,
) -> list[Array]:
    """Trains a linear network by full-batch gradient descent and returns its weights over time.

    The loss is the mean of ½|y - Wx|² over a data set with white inputs. Its gradient depends on
    the data through Sigma_yx alone (:func:`descent`) and is computed from it, so that a hundred
    thousand steps take seconds. A step of learning rate eta is a time of eta tau; the course
    differs from :func:`gradient_flow` by a multiple of eta, by at most 15 eta for
    :func:`five_tasks` from a0 = 1e-4.

    Args:
        network: is trained in place.
        sigma: Sigma_yx of all sensors, [outputs, inputs].
        times: at which the weights are returned, in units of tau, increasing, [T].
        dropped: which sensors are dropped when.
        step: the largest learning rate; it is made a little smaller where a time or a switch
            would fall between two steps.

    Returns:
        The weights of each layer, float64 [T, width out, width in]; :func:`product` multiplies
        them.

    Raises:
        UserError: sigma is no finite matrix, the network does not fit it, times are negative or do
            not increase, there is no such sensor, or the step is not positive or so large that
            the weights diverge.

    Example:
        >>> from critical_periods.linear import balanced_starts, deep_weights
        >>> sigma = [[0.0, 2.0], [1.0, 0.0]]
        >>> network = DeepLinear(balanced_starts(sigma, a0=0.01))
        >>> course = product(gradient_descent(network, sigma, [1.0, 2.0]))
        >>> float(abs(course - deep_weights(sigma, 0.01, [1.0, 2.0])).max())
        0.0011...
    """
    full, instants = checked_matrix("sigma", sigma), checked_times(times, increasing=True)
    layers = [layer.data for layer in network.layers]
    checked_layers([layer.cpu() for layer in layers], full)
    if not 0 < step < np.inf:
        raise UserError(f"step is {step}; give a positive learning rate.")

    def weights() -> list[Array]:
        return [layer.double().cpu().numpy().copy() for layer in layers]

    kept = [weights()] if instants[0] == 0 else []
    for begin, end, held in stretches(full, dropped, float(instants[-1])):
        target = torch.from_numpy(held).to(layers[0])
        marks = np.unique([begin, *instants[(instants > begin) & (instants < end)], end])
        for start, stop in pairwise(marks):
            # A step too many costs nothing, a last step of 1e-17 would.
            count = ceil((stop - start) / step - 1e-6)
            for _ in range(count):
                for layer, direction in zip(layers, descent(layers, target), strict=True):
                    layer.add_(direction, alpha=(stop - start) / count)
            if not all(layer.isfinite().all() for layer in layers):
                raise UserError(f"the weights diverged with step {step}; choose a smaller one.")
            if stop in instants:
                kept.append(weights())
    return [np.stack(course) for course in zip(*kept, strict=True)]
