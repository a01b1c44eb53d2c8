"""A deficit of matrix completion: another matrix in place of the one to complete."""

from __future__ import annotations

import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.core.randomness import Stream, fold, global_seed
from critical_periods.deficits.deficit import Deficit


def low_rank_matrix(size: int, rank: int, seed: int) -> Tensor:
    """A random square matrix L R^T of a rank, scaled to the Frobenius norm ``size``.

    The entries of L and R are Gaussian; the norm makes the entries' root mean square 1.

    Args:
        size: n, rows and columns.
        rank: columns of L and R.
        seed: which matrix.

    Returns:
        float32 [n, n].

    Raises:
        UserError: the rank is not between 1 and n.

    Example:
        >>> matrix = low_rank_matrix(20, rank=3, seed=0)
        >>> torch.linalg.matrix_rank(matrix).item(), round(matrix.norm().item(), 3)
        (3, 20.0)
    """
    if not 1 <= rank <= size:
        raise UserError(f"rank={rank} must lie between 1 and the {size} rows of the matrix.")
    draws = torch.Generator().manual_seed(seed)
    left, right = torch.randn(2, size, rank, generator=draws)
    matrix = left @ right.T
    return matrix * (size / matrix.norm())


class OtherMatrix(Deficit):
    """Replaces the matrix to complete by another random one of the same size and of another rank.

    The observed places stay the same.

    Source: Kleinman, Achille & Soatto (ICLR 2024, arXiv 2308.12221): after long training on a
    matrix of rank 10 a deep network generalises worse on one of rank 5 than without it.

    Args:
        rank: of the other matrix; it has the same size, and entries of the same mean square 1.
        seed: which matrix; by default the seed of the run (``seed_everything``). It is never that
            of :class:`~critical_periods.data.MatrixDataModule`.

    Raises:
        UserError: the rank is less than 1; by ``check``, more than the matrix has rows.

    Example:
        >>> from critical_periods.core.batch import Batch
        >>> batch = Batch(torch.ones(1, 1, 1, 20, 20), torch.arange(5)[None], -torch.ones(1), [0])
        >>> torch.linalg.matrix_rank(OtherMatrix(rank=3)(batch).views[0, 0, 0]).item()
        3
    """

    def __init__(self, rank: int = 10, seed: int | None = None) -> None:
        super().__init__()
        if rank < 1:
            raise UserError(f"rank={rank} of OtherMatrix must be at least 1.")
        self.rank = rank
        self.seed = global_seed() if seed is None else seed

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The other matrix for each of the images, [N, 1, n, n]."""
        other = low_rank_matrix(images.shape[-1], self.rank, fold(self.seed, Stream.OTHER_MATRIX))
        return other.to(images).expand_as(images)

    def extra_repr(self) -> str:
        """The settings, as ``print`` shows them."""
        return f"rank={self.rank}, seed={self.seed}, {super().extra_repr()}"
