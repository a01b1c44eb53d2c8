"""The base classes of the networks of this package, and the layers of those with batch norm."""

from collections import OrderedDict
from collections.abc import Mapping
from functools import reduce

from torch import Tensor, nn

from critical_periods.models.checks import check_views


class Network(nn.Module):
    """A module of one tensor [B, C, H, W] a view that gives logits [B, num_classes].

    It adds nothing to ``nn.Module``, any of which may be used in its place, but lets configs name
    this package's networks by short names, even where torchvision has the same one.
    """


class OneViewNetwork(Network):
    """Layers in sequence, from one view to the logits: logits = f_n(… f_2(f_1(x))).

    For several views there is :class:`~critical_periods.models.split.SplitNetwork`.

    Args:
        layers: the layers in their order, under the names that they have as children.

    Raises:
        UserError: (by ``forward``) there is more than one view, or none.

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
        """Logits [B, num_classes] of exactly one view [B, C, H, W]."""
        check_views(type(self).__name__, len(views), 1)
        return reduce(lambda x, layer: layer(x), self.children(), views[0])


def norm_relu(dropout: float = 0.0, **layers: nn.Module) -> nn.Sequential:
    """A linear map and its norm, under the names given, then ``relu`` and perhaps ``dropout``.

    The ReLU overwrites the output of the norm.

    Example:
        >>> [name for name, _ in norm_relu(0.1, conv=nn.Conv2d(3, 8, 3)).named_children()]
        ['conv', 'relu', 'dropout']
    """
    layers["relu"] = nn.ReLU(inplace=True)
    if dropout:
        layers["dropout"] = nn.Dropout(dropout)
    return nn.Sequential(OrderedDict(layers))
