"""The random choice of visible patches, split among the views by a Dirichlet distribution."""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError


def visible_total(mask_ratio: float, views: int, patches: int) -> int:
    """How many of the V·N patches of all views are visible: (1 - mask_ratio) V N, rounded.

    Raises a UserError where none would be visible, or none hidden.

    Example:
        >>> visible_total(0.75, views=2, patches=196)
        98
    """
    total = round((1 - mask_ratio) * views * patches)
    if not 0 < total < views * patches:
        raise UserError(
            f"mask_ratio={mask_ratio} hides all or none of the {views * patches} patches; choose a "
            "share between 0 and 1, such as 0.75."
        )
    return total


def random_visible(draws: Tensor, views: int, total: int) -> Tensor:
    """A random choice of patches, split among the views by a flat Dirichlet distribution.

    For each sample the shares of the views are λ ~ Dirichlet(1, …, 1), and view v has n_v visible
    patches, uniformly chosen,

        n_v = round((λ_1 + … + λ_v) total) - round((λ_1 + … + λ_(v-1)) total),

    so the sum over views is exactly ``total``. Where n_v exceeds the patches of a view, random
    patches of the others make up for it.

    Source: MultiMAE (Bachmann et al. 2022), section 3.2.

    Args:
        draws: independent uniform numbers in [0, 1), [B, V + V·N]: from
            :func:`~critical_periods.core.randomness.uniform`, or from any generator.
        views: V, all of N patches.
        total: visible patches of each sample, at most V·N.

    Returns:
        Places in the sequence of all patches (view 0's first), in their order, int64 [B, total].

    Example:
        >>> draws = torch.rand(5, 2 + 8, generator=torch.Generator().manual_seed(0))
        >>> draws[:, 0] = 0.0  # the first view gets nothing of three
        >>> visible = random_visible(draws, views=2, total=3)
        >>> visible.shape, bool((visible >= 4).all())
        (torch.Size([5, 3]), True)
    """
    # Exponential numbers over their sum are Dirichlet(1); no draw of 0 divides by nothing.
    waits = -torch.log1p(-draws[:, :views].double()) + 1e-12
    edges = (waits.cumsum(1) / waits.sum(1, keepdim=True) * total).round().long()
    numbers = edges.diff(dim=1, prepend=torch.zeros_like(edges[:, :1]))
    order = rearrange(draws[:, views:], "b (v n) -> b v n", v=views)
    rank = order.argsort(dim=2, stable=True).argsort(dim=2)
    # Chosen patches come first; a full view's surplus goes on to the best of the others.
    keys = order.double() + (rank >= numbers[:, :, None])
    chosen = keys.flatten(1).argsort(dim=1, stable=True)[:, :total]
    return chosen.sort(dim=1).values


def hidden_patches(visible: Tensor, views: int, patches: int) -> Tensor:
    """A mask, bool [B, V, N], of the patches not among the ``visible`` places [B, n].

    Example:
        >>> hidden_patches(torch.tensor([[0, 3]]), views=2, patches=2).int()
        tensor([[[0, 1],
                 [1, 0]]], dtype=torch.int32)
    """
    seen = F.one_hot(visible, views * patches).sum(1)
    return rearrange(seen == 0, "b (v n) -> b v n", v=views)
