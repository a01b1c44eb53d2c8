"""The fully connected network of Achille, Rovere & Soatto (ICLR 2019) for MNIST."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from critical_periods.core.errors import UserError
from critical_periods.models.checks import check_dropout, check_sizes, check_views
from critical_periods.models.network import OneViewNetwork, norm_relu


class MLP(OneViewNetwork):
    """A fully connected network with hidden layers of 2500, 2000, 1500, 1000 and 500 units.

    The view is flattened; each hidden layer (``fc1``, ``fc2``, …) is a linear map without bias,
    batch norm and ReLU; ``head`` is linear with a bias. By default there are 12,580,010 parameters.
    As in :class:`~critical_periods.models.AllCNN`, the ReLU overwrites the output of ``norm``.

    Source: Achille, Rovere & Soatto (ICLR 2019), trained on MNIST padded to 32x32.

    Args:
        hidden: units of each hidden layer; an empty list gives a softmax regression.
        in_features: numbers in a view, C·H·W.
        num_classes: how many logits.
        dropout: the probability of dropout after every hidden layer; the paper has none.

    Raises:
        UserError: an argument is not a whole number of at least one or no probability, or (by
            ``forward``) there is not one view, of ``in_features`` numbers.

    Example:
        >>> import torch
        >>> network = MLP(hidden=[8, 4])
        >>> network(torch.randn(2, 1, 32, 32)).shape
        torch.Size([2, 10])
        >>> [name for name, _ in network.named_children()]
        ['flatten', 'fc1', 'fc2', 'head']
    """

    def __init__(
        self,
        hidden: Sequence[int] = (2500, 2000, 1500, 1000, 500),
        in_features: int = 1024,
        num_classes: int = 10,
        dropout: float = 0.0,
    ) -> None:
        check_dropout(dropout)
        check_sizes(in_features=in_features, num_classes=num_classes)
        check_sizes(**{f"hidden[{i}]": size for i, size in enumerate(hidden)})
        sizes = [in_features, *hidden]
        layers = OrderedDict[str, nn.Module](flatten=nn.Flatten())
        for i, (narrow, wide) in enumerate(pairwise(sizes), start=1):
            linear = nn.Linear(narrow, wide, bias=False)
            layers[f"fc{i}"] = norm_relu(dropout, linear=linear, norm=nn.BatchNorm1d(wide))
        layers["head"] = nn.Linear(sizes[-1], num_classes)
        super().__init__(layers)
        self.in_features = in_features

    def forward(self, *views: Tensor) -> Tensor:
        """Logits [B, num_classes] of exactly one view [B, C, H, W], C·H·W = ``in_features``."""
        check_views("MLP", len(views), 1)
        shape = views[0].shape[1:]
        if shape.numel() != self.in_features:
            raise UserError(
                f"MLP takes views of in_features={self.in_features} numbers but was given "
                f"{'x'.join(map(str, shape))}; set in_features to {shape.numel()}."
            )
        return super().forward(*views)
