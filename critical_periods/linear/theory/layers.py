"""Products of weight matrices, and the gradient of each factor."""

from collections.abc import Sequence
from itertools import accumulate
from operator import matmul
from typing import TypeVar

import torch
from numpy.typing import ArrayLike

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.checks import Array, checked_matrix

Matrix = TypeVar("Matrix", Array, torch.Tensor)


def product(layers: Sequence[Matrix]) -> Matrix:
    """The weights from sensors to tasks of a network: WD … W2 W1, [..., outputs, inputs].

    Args:
        layers: the weights from the first layer to the last, [..., width out, width in] each.

    Example:
        >>> import numpy as np
        >>> product([np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])])
        array([[3., 6.],
               [4., 8.]])
    """
    return partial_products(layers)[-1]


def partial_products(layers: Sequence[Matrix]) -> list[Matrix]:
    """The products from the first layer up: W1, W2 W1, …, WD … W1."""
    return list(accumulate(layers, lambda below, layer: matmul(layer, below)))


def layer_gradients(
    layers: Sequence[Matrix], below: Sequence[Matrix], error: Matrix
) -> list[Matrix]:
    """The gradient of a loss L of the product W = WD … W1 in every layer, of the layer's shape.

        dL/dWi = (WD … W(i+1))^T (dL/dW) (W(i-1) … W1)^T.

    Args:
        layers: W1, …, WD.
        below: W1, …, W(D-1) … W1: all :func:`partial_products` but the last.
        error: dL/dW, [outputs, inputs].
    """
    gradients: list[Matrix] = []
    for layer, under in zip(layers[:0:-1], below[::-1], strict=True):
        gradients.append(matmul(error, under.T))
        error = matmul(layer.T, error)
    gradients.append(error)
    return gradients[::-1]


def checked_layers(starts: Sequence[ArrayLike], sigma: Array) -> list[Array]:
    """Weights as finite matrices, which must fit each other and sigma [outputs, inputs]."""
    layers = [checked_matrix(f"layer {place}", one) for place, one in enumerate(starts, 1)]
    outs = [sigma.shape[1], *(layer.shape[0] for layer in layers)]
    ins = [*(layer.shape[1] for layer in layers), sigma.shape[0]]
    if outs != ins:
        shapes = " then ".join(str(list(layer.shape)) for layer in layers) or "none"
        raise UserError(
            f"the layers have shapes {shapes}; "
            f"they must lead from {sigma.shape[1]} inputs to {sigma.shape[0]} outputs."
        )
    return layers
