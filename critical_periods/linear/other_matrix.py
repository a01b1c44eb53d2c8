"""A deficit of matrix completion: another matrix in place of the one to complete."""

import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.core.randomness import Stream, fold, global_seed
from critical_periods.deficits.deficit import Deficit


def low_rank_matrix(size: int, rank: int, seed: int) -> Tensor:
    """A random matrix L R^T, float32 [n, n] with n = ``size``, scaled to the Frobenius norm n.

    The entries of L and R [n, rank] are Gaussian; the norm makes the root mean square 1.

    Raises:
        UserError: the rank is not between 1 and n.
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
        seed: which matrix; by default the seed of the run (``seed_everything``). The matrix always
            differs from that of :class:`~critical_periods.data.MatrixDataModule`.

    Raises:
        UserError: the rank is less than 1; by ``check``, more than the matrix has rows.

    Example:
        >>> from critical_periods.core.batch import Batch
        >>> batch = Batch(torch.ones(1, 1, 1, 20, 20), torch.arange(5)[None], -torch.ones(1), [0])
        >>> torch.linalg.matrix_rank(OtherMatrix(rank=3)(batch).views[0, 0, 0]).item()
        3
    """

    _shown = ("rank", "seed", "views")

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
