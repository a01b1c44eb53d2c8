"""A world with a hierarchy: eight things, and what is true of each."""

from __future__ import annotations

import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.linear.full_batch import FullBatchDataModule

# 2,048 things and their properties: 50 MB, and four times that with each further level.
_MOST = 12


def hierarchy(levels: int = 4) -> Tensor:
    """What the leaves of a binary tree have in common: 1 where a node lies above a leaf.

    Args:
        levels: L, of the tree, its root included; 12 at most, as the size goes as 4^L.

    Returns:
        float32 [2^(L-1), 2^L - 1]: a row a leaf, a column a node, the root first. Its squared
        singular values are 2^L - 1, 2^(L-1) - 1, …, 1, that of level l (from the root) once for
        each of the 2^(l-2) nodes above it.

    Raises:
        UserError: the levels are less than 1 or more than 12.

    Example:
        >>> hierarchy(3)
        tensor([[1., 1., 0., 1., 0., 0., 0.],
                [1., 1., 0., 0., 1., 0., 0.],
                [1., 0., 1., 0., 0., 1., 0.],
                [1., 0., 1., 0., 0., 0., 1.]])
        >>> torch.linalg.svdvals(hierarchy(4)).square()
        tensor([15., 7., 3., 3., 1., 1., 1., 1.])
    """
    _check_levels(levels, 1, "hierarchy")
    leaves = 2 ** (levels - 1)
    nodes = [
        torch.eye(2**level).repeat_interleave(leaves // 2**level, dim=0) for level in range(levels)
    ]
    return torch.cat(nodes, dim=1)


class HierarchyDataModule(FullBatchDataModule):
    """Eight things, one-hot, and fifteen properties of each, in one batch.

    The properties are the nodes of a binary tree (:func:`hierarchy`): one that all things have,
    two that half of them have, four, and each thing's own. A network learns them from the general
    to the particular, mode by mode (Saxe, McClelland & Ganguli 2019, PNAS); in Kleinman, Achille &
    Soatto (ICLR 2024, arXiv 2308.12221) two paths compete for the modes. The inputs are white,
    X X^T = 1, so the task's map is Σ_yx = Y^T X itself.

    Args:
        levels: L, of the tree, from 2 to 12; four give 8 things and 15 properties, L of them
            2^(L-1) and 2^L - 1.

    Raises:
        UserError: the tree has less than 2 levels, or more than 12.

    Example:
        >>> data = HierarchyDataModule()
        >>> data.batch.views.shape, data.batch.target.shape
        (torch.Size([8, 1, 1, 1, 8]), torch.Size([8, 15]))
    """

    def __init__(self, levels: int = 4) -> None:
        super().__init__()
        _check_levels(levels, 2, "HierarchyDataModule")
        self.levels = levels

    def load(self) -> Batch:
        """Every thing once."""
        target = hierarchy(self.levels)
        things = torch.eye(len(target)).view(len(target), 1, 1, 1, -1)
        return Batch(things, target, torch.full((len(target),), -1), torch.arange(len(target)))

    def task_map(self) -> Tensor:
        """Σ_yx = Σ y x^T over all samples, [outputs, inputs]: what a linear network learns."""
        return self.batch.target.T @ self.batch.views.flatten(1)


def _check_levels(levels: int, least: int, owner: str) -> None:
    if not least <= levels <= _MOST:
        raise UserError(
            f"levels={levels} of {owner} must lie between {least} and {_MOST}: the table grows as "
            f"4^levels, and {_MOST} levels already are {2 ** (_MOST - 1):,} things of "
            f"{2**_MOST - 1:,} properties."
        )
