"""A random matrix of low rank with some entries observed: the data of matrix completion."""

import torch

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.core.randomness import Stream, fold, generator, global_seed
from critical_periods.linear.full_batch import FullBatchDataModule
from critical_periods.linear.other_matrix import low_rank_matrix


class MatrixDataModule(FullBatchDataModule):
    """One random n x n matrix of low rank and Frobenius norm n, and the N places that are observed.

    Places are drawn without replacement; matrix and places depend on the seed of the run alone.
    The batch has one sample: its view [1, 1, 1, n, n] is the full matrix, its target [1, N] the
    observed places, counted row by row, to which training must restrict itself.

    Source: Kleinman, Achille & Soatto (ICLR 2024, arXiv 2308.12221), with n = 100 and N = 2,000.

    Args:
        rank: of the matrix.
        observed: N, observed entries.
        size: n, rows and columns.

    Raises:
        UserError: there are not so many entries, or the rank is not between 1 and n.

    Example:
        >>> data = MatrixDataModule(rank=2, observed=30, size=10)
        >>> data.batch.views.shape, data.batch.target.shape
        (torch.Size([1, 1, 1, 10, 10]), torch.Size([1, 30]))
    """

    def __init__(self, rank: int = 5, observed: int = 2000, size: int = 100) -> None:
        super().__init__()
        if not 1 <= observed <= size**2:
            raise UserError(
                f"observed={observed} of MatrixDataModule must lie between 1 and the {size**2} "
                f"entries of a matrix of size={size}."
            )
        if not 1 <= rank <= size:
            raise UserError(f"rank={rank} of MatrixDataModule must lie between 1 and size={size}.")
        self.rank, self.observed, self.size = rank, observed, size

    def load(self) -> Batch:
        """The matrix and its observed places, as one sample."""
        seed = global_seed()
        matrix = low_rank_matrix(self.size, self.rank, fold(seed, Stream.MATRIX))
        draws = generator("cpu", seed, Stream.OBSERVED_ENTRIES)
        places = torch.randperm(self.size**2, generator=draws)[: self.observed].sort().values
        return Batch(matrix[None, None, None], places[None], torch.tensor([-1]), torch.tensor([0]))
