"""Networks with several heads: one for all views together, others for single views."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from critical_periods.core.errors import UserError

BOTH = "both"


def check_heads(heads: Sequence[int | str] | None, num_views: int) -> None:
    """Raises a UserError unless ``heads`` is None or holds "both" and views, each at most once."""
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
    """Selects the logits of the head that each sample's target belongs to.

    All heads stay in the graph, whichever a batch needs: distributed training waits for the
    gradients of all parameters.

    Args:
        network: its attribute ``heads`` names its heads, as ``["both", 0, 1]``; without one, or
            where it is anything else, it has a single head.
        logits: its output, [B, heads, K], or [B, K] with a single head.
        target_view: the view of each sample's target, [B]: -1 for all views, v for view v. The head
            for both serves where view v has no head, and everywhere if None.

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
    heads = _heads_of(network)
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


def _heads_of(network: nn.Module) -> Sequence[int | str] | None:
    """The names of a network's heads; None of a third party's attribute of that name."""
    heads = getattr(network, "heads", None)
    if not isinstance(heads, (list, tuple)) or BOTH not in heads:
        return None
    return heads if all(head == BOTH or isinstance(head, int) for head in heads) else None


@contextmanager
def answering_together(network: nn.Module) -> Iterator[None]:
    """A context in which the network returns the logits [B, K] of the head for both alone.

    So measures of the logits need not select a head. A network with a single head is unchanged.

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
