"""Items and their properties, taken from a binary tree: the task of Saxe et al. (2019)."""

import torch
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.linear.full_batch import FullBatchDataModule

# 2,048 items and their properties: 50 MB, and four times that with each further level.
_MOST = 12


def hierarchy(levels: int = 4) -> Tensor:
    """The leaves and nodes of a binary tree as a matrix: 1 where a node is a leaf or above it.

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
    """2^(L-1) one-hot items and 2^L - 1 binary properties of each in one batch; 8 and 15 at L = 4.

    The properties are the nodes of a binary tree (:func:`hierarchy`): one that all items have, two
    that half of them have each, and so on to each item's own. The inputs are white, X X^T = 1, so
    the map of the task is Σ_yx = Y^T X itself.

    Source: Saxe, McClelland & Ganguli (PNAS 2019), where a network learns the modes from the most
    general to the most specific; Kleinman, Achille & Soatto (ICLR 2024, arXiv 2308.12221), where
    two paths compete for them.

    Args:
        levels: L, of the tree, from 2 to 12.

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
        """Every item once, views [items, 1, 1, 1, items] and targets [items, properties]."""
        target = hierarchy(self.levels)
        items = torch.eye(len(target)).view(len(target), 1, 1, 1, -1)
        return Batch(items, target, torch.full((len(target),), -1), torch.arange(len(target)))

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
