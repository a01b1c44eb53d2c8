"""The base class of split networks: a pathway for each view, their sum, and one trunk."""

from collections.abc import Iterable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from critical_periods.models.checks import check_views
from critical_periods.models.heads import check_heads
from critical_periods.models.network import Network

Heads = Sequence[int | str] | None


class SplitNetwork(Network):
    """A network that processes each view in a pathway of its own, then their sum in a trunk.

    With pathways f_1, …, f_V of the same layers, but their own weights, and the trunk g

        logits = g(f_1(x_1) + … + f_V(x_V)).

    As nothing mixes the views before the sum, a measure that pairs one left view with many right
    ones can encode each view once and call :meth:`fuse` for the pairs.

    With several heads the logits are stacked, [B, heads, num_classes], and
    :func:`~critical_periods.models.heads.own_head` selects that of each sample: the head for both
    views or, where the views show different things, that of the view whose class is the target.

    Source: the splits of the ResNet and the All-CNN in Kleinman, Achille & Soatto (CVPR 2023),
    appendix A.4; several heads: A.6.

    Args:
        pathways: one module a view, from [B, C, H, W] to a feature map, all of the same shape.
        trunk: from the summed feature map to logits [B, num_classes], or, with heads,
            [B, heads · num_classes].
        heads: the views that each head classifies, such as ``["both", 0, 1]``; by default there is
            a single head, for both, and logits are not stacked.

    Raises:
        UserError: ``heads`` lacks "both", or names a view twice or one that there is not; or (by
            ``forward`` and ``fuse``) there are not as many tensors as pathways.

    Attributes:
        pathways: an ``nn.ModuleList``, one pathway a view.
        heads: the views that each head classifies; None with a single one.

    Example:
        >>> network = SplitNetwork([nn.Identity(), nn.Identity()], trunk=nn.Flatten())
        >>> left, right = torch.ones(1, 1, 2, 1), torch.tensor([[[[3.0], [5.0]]]])
        >>> network(left, right)
        tensor([[4., 6.]])
    """

    def __init__(
        self, pathways: Iterable[nn.Module], trunk: nn.Module, heads: Heads = None
    ) -> None:
        super().__init__()
        self.pathways = nn.ModuleList(pathways)
        self.trunk = trunk
        check_heads(heads, len(self.pathways))
        self.heads = None if heads is None else list(heads)

    def fuse(self, *features: Tensor) -> Tensor:
        """Logits of features that the pathways have computed: trunk(sum of features).

        Args:
            *features: one feature map a view, as the pathways give them.

        Returns:
            Logits [B, num_classes], or [B, heads, num_classes] with several heads.

        Example:
            >>> network = SplitNetwork([nn.ReLU(), nn.Identity()], trunk=nn.Flatten())
            >>> views = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
            >>> features = [path(x) for path, x in zip(network.pathways, views)]
            >>> torch.equal(network.fuse(*features), network(*views))
            True
        """
        check_views(type(self).__name__, len(features), len(self.pathways))
        logits: Tensor = self.trunk(reduce(torch.add, features))
        return logits if self.heads is None else logits.unflatten(1, (len(self.heads), -1))

    def forward(self, *views: Tensor) -> Tensor:
        """Logits of one tensor [B, C, H, W] a view, in the shape of :meth:`fuse`."""
        check_views(type(self).__name__, len(views), len(self.pathways))
        return self.fuse(*(path(view) for path, view in zip(self.pathways, views, strict=True)))


def outputs(num_classes: int, heads: Heads) -> int:
    """How many numbers the trunk of a network with these heads has to give."""
    return num_classes * len(heads or [None])
