"""The base class of networks of one view: layers in sequence."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from torch import Tensor, nn

from critical_periods.models.checks import check_views
from critical_periods.models.network import Network


class OneViewNetwork(Network):
    """Layers in sequence, from one view to the logits: logits = f_n(… f_2(f_1(x))).

    For several views there is :class:`~critical_periods.models.split.SplitNetwork`.

    Args:
        layers: the layers in their order, under the names that they have as children.

    Example:
        >>> import torch
        >>> network = OneViewNetwork({"flatten": nn.Flatten(), "head": nn.Linear(12, 10)})
        >>> network(torch.randn(2, 3, 2, 2)).shape
        torch.Size([2, 10])
    """

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *views: Tensor) -> Tensor:
        """Logits [B, num_classes] of exactly one view [B, C, H, W].

        Raises:
            UserError: there is more than one view, or none.
        """
        check_views(type(self).__name__, len(views), 1)
        return reduce(lambda x, layer: layer(x), self.children(), views[0])
