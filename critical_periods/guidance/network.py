"""The fully connected network of an agent, for its policy and for its critic."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from critical_periods.core.errors import UserError
from critical_periods.models.checks import check_sizes, check_views
from critical_periods.models.network import OneViewNetwork


class AgentMLP(OneViewNetwork):
    """Linear layers with tanh or ReLU between them, started orthogonally as PPO's usually are.

    The gain is √2 in hidden layers (``fc1``, …) and ``gain`` in the last one (``head``): 0.01 has a
    policy try all actions at first, and 1 is usual for a critic. Biases start at 0.

    Source: Engstrom et al., *Implementation Matters in Deep RL* (ICLR 2020).

    Args:
        in_features: numbers in an observation.
        outputs: actions of a policy, 1 for a critic.
        hidden: units of each hidden layer.
        gain: of the last layer.
        tanh: whether units are tanh instead of ReLU.

    Raises:
        UserError: a size is no whole number of at least one, or (by ``forward``) an observation has
            other than ``in_features`` numbers.

    Example:
        >>> import torch
        >>> AgentMLP(in_features=324, outputs=4)(torch.randn(2, 4, 9, 9)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        in_features: int,
        outputs: int,
        hidden: Sequence[int] = (128, 128),
        gain: float = 0.01,
        tanh: bool = False,
    ) -> None:
        check_sizes(in_features=in_features, outputs=outputs)
        check_sizes(**{f"hidden[{i}]": size for i, size in enumerate(hidden)})
        layers = OrderedDict[str, nn.Module](flatten=nn.Flatten())
        for i, (narrow, wide) in enumerate(pairwise([in_features, *hidden]), start=1):
            layers[f"fc{i}"] = _orthogonal(narrow, wide, 2**0.5)
            layers[f"act{i}"] = nn.Tanh() if tanh else nn.ReLU()
        layers["head"] = _orthogonal([in_features, *hidden][-1], outputs, gain)
        super().__init__(layers)
        self.in_features = in_features

    def forward(self, *views: Tensor) -> Tensor:
        """Outputs [B, outputs] of one view [B, ...] of ``in_features`` numbers."""
        check_views("AgentMLP", len(views), 1)
        if (found := views[0].shape[1:].numel()) != self.in_features:
            raise UserError(
                f"AgentMLP takes observations of in_features={self.in_features} numbers, but the "
                f"environment's have {found}; set in_features to {found}."
            )
        return super().forward(*views)


def _orthogonal(narrow: int, wide: int, gain: float) -> nn.Linear:
    layer = nn.Linear(narrow, wide)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
