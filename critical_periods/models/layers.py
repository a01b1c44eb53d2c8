"""The layers that networks with batch norm are made of."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def norm_relu(dropout: float = 0.0, **layers: nn.Module) -> nn.Sequential:
    """A linear map and its norm, under the names given, then ``relu`` and perhaps ``dropout``.

    The ReLU overwrites the output of the norm.

    Args:
        dropout: its probability; without one there is no such layer.
        **layers: the linear map and the norm.

    Example:
        >>> [name for name, _ in norm_relu(0.1, conv=nn.Conv2d(3, 8, 3)).named_children()]
        ['conv', 'relu', 'dropout']
    """
    layers["relu"] = nn.ReLU(inplace=True)
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(OrderedDict(layers))
