"""Several answers of one network: one for all views together, one for each view alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from critical_periods.core.errors import UserError

BOTH = "both"


def check_heads(heads: Sequence[int | str] | None, num_views: int) -> None:
    """Require a head for both views, and further ones of views that there are.

    Args:
        heads: "both" and numbers of views; None is a network with a single, nameless head.
        num_views: how many views the network takes.

    Raises:
        UserError: there is none for both, one comes twice, or one is of no view.

    Example:
        >>> check_heads(["both", 0, 2], num_views=2)
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: heads=['both', 0, 2] must hold 'both' once and, at \
will, numbers of views from 0 to 1, each once.
    """
    if heads is None:
        return
    views = [head for head in heads if head != BOTH]
    known = all(isinstance(view, int) and 0 <= view < num_views for view in views)
    if not known or list(heads).count(BOTH) != 1 or len(set(views)) < len(views):
        raise UserError(
            f"heads={list(heads)} must hold 'both' once and, at will, numbers of views from 0 to "
            f"{num_views - 1}, each once."
        )


def own_head(network: nn.Module, logits: Tensor, target_view: Tensor | None = None) -> Tensor:
    """Each sample's answer by the head that its target belongs to.

    Gathering from stacked logits leaves no parameter out of the graph, whichever heads a batch
    needs: distributed training waits for gradients of all.

    Args:
        network: whose attribute ``heads`` names its heads; one without it has a single head.
        logits: what it gave: [B, heads, K], or [B, K] with a single head.
        target_view: whose target each sample has, [B]: -1 for all views, v for view v, which falls
            to the head for both where view v has no head. None takes the head for both
            throughout.

    Returns:
        Logits [B, K].

    Example:
        >>> network = nn.Identity()
        >>> network.heads = ["both", 0, 1]
        >>> stacked = torch.arange(3.0).expand(2, 3).unsqueeze(2)  # head h answers h
        >>> own_head(network, stacked, torch.tensor([-1, 1])).flatten().tolist()
        [0.0, 2.0]
        >>> own_head(network, stacked).flatten().tolist()
        [0.0, 0.0]
    """
    heads: Sequence[int | str] | None = getattr(network, "heads", None)
    if heads is None:
        return logits
    both = heads.index(BOTH)
    if target_view is None:
        return logits[:, both]
    place = torch.full_like(target_view, both)
    for number, head in enumerate(heads):
        if isinstance(head, int):
            place = place.masked_fill(target_view == head, number)
    sample = torch.arange(len(logits), device=logits.device)
    return logits[sample, place]


@contextmanager
def answering_together(network: nn.Module) -> Iterator[None]:
    """For a while the network gives the head for both alone, logits [B, K].

    A network with a single head does so anyway. Measures of the answer then need not know of
    heads.

    Example:
        >>> from critical_periods.models import SplitAllCNN
        >>> network, views = SplitAllCNN(width=4, heads=["both", 0, 1]), torch.zeros(2, 2, 3, 8, 8)
        >>> with answering_together(network):
        ...     together = network(*views)
        >>> network(*views).shape, together.shape
        (torch.Size([2, 3, 10]), torch.Size([2, 10]))
    """

    def select(module: nn.Module, args: Any, output: Any) -> Any:
        return own_head(network, output) if isinstance(output, Tensor) else output

    with network.register_forward_hook(select):
        yield
