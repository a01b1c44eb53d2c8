"""The shape that all networks of one eye share: layers in a row."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from torch import Tensor, nn

from critical_periods.models.checks import check_views
from critical_periods.models.network import Network


class OneViewNetwork(Network):
    """Layers one after another, from the one view to the logits.

    The one-eyed counterpart of :class:`~critical_periods.models.split.SplitNetwork`.

    Args:
        layers: the layers in their order; their names are those of the network's children.

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
        """Logits of a batch.

        Args:
            *views: exactly one tensor [B, C, H, W].

        Returns:
            Logits [B, num_classes].

        Raises:
            UserError: there is more than one view, or none.
        """
        check_views(type(self).__name__, len(views), 1)
        return reduce(lambda x, layer: layer(x), self.children(), views[0])
