"""Square roots of the covariance of scores, which are what the Fisher information is made of."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from critical_periods.core.project import Likelihood


class ScoreRoot(NamedTuple):
    """A matrix S for each sample with S Sᵀ = Cov(∇_z log p(y|z)), z the K outputs of a sample.

    - ``categorical``: diag(p) - p pᵀ. With the largest p last, and q_j = Σ_(i > j) p_i, column j of
      K - 1 has √(p_j q_j / q_(j-1)) at place j and -p_i √(p_j / (q_j q_(j-1))) at i > j;
    - ``bernoulli``: √(p (1 - p)) on the diagonal; ``gaussian``: 1.

    Source of the first: Tanabe & Sagae, *J. R. Stat. Soc. B* 54 (1992).

    Attributes:
        p: probabilities [B, K, places], float64; 0 where there is nothing off the diagonal.
        diagonal: of the matrix, at the places of its columns.
        factor: -S_ij / p_i of column j.
        rank: of each class in the order of the columns.
        columns: how many there are, of all places.
    """

    p: Tensor
    diagonal: Tensor
    factor: Tensor
    rank: Tensor
    columns: int

    @classmethod
    def of(cls, outputs: Tensor, likelihood: Likelihood) -> Self:
        """The matrices of outputs [B, K, ...].

        Example:
            >>> root = ScoreRoot.of(torch.tensor([[0.0, 1.0, 3.0]]), "categorical")
            >>> S = torch.stack([root.column(j) for j in range(root.columns)], -1).squeeze(-2)
            >>> p = root.p.squeeze(-1)
            >>> torch.allclose(S @ S.mT, p.diag_embed() - p.mT * p)
            True
        """
        if likelihood != "categorical":
            z = outputs.double().reshape(len(outputs), -1, 1)
            zeros, p = torch.zeros_like(z), z.sigmoid()
            diagonal = (p * (1 - p)).sqrt() if likelihood == "bernoulli" else zeros + 1
            rank = torch.arange(z.shape[1], device=z.device).view(1, -1, 1).expand_as(z)
            return cls(zeros, diagonal, zeros, rank, z.shape[1])
        p = outputs.double().softmax(1).reshape(len(outputs), outputs.shape[1], -1)
        rank = _swapped(p)
        ordered = p.gather(1, rank)
        # From there on and after, without subtractions.
        above = ordered.flip(1).cumsum(1).flip(1)
        after = torch.cat([above[:, 1:], torch.zeros_like(above[:, :1])], 1)
        diagonal = (ordered * after / above).sqrt()
        factor = (ordered / (after * above)).sqrt().nan_to_num(posinf=0.0)
        factor[:, -1] = 0
        columns = (p.shape[1] - 1) * p.shape[2]
        return cls(p, diagonal.gather(1, rank), factor.gather(1, rank), rank, columns)

    def column(self, number: int) -> Tensor:
        """A column, shaped like the outputs with their places in one dimension."""
        place = number % self.p.shape[-1]
        of, here = number // self.p.shape[-1], torch.arange(self.p.shape[-1], device=self.p.device)
        chosen = self.rank == of
        factor = torch.where(chosen, self.factor, 0).sum(-2, keepdim=True)
        values = torch.where(chosen, self.diagonal, 0)
        values = values - torch.where(self.rank > of, self.p * factor, 0)
        return values * (here == place)

    def times(self, signs: Tensor) -> Tensor:
        """S ε of signs [B, draws, K, places], one for each column at its place."""
        rank = self.rank.unsqueeze(1).expand_as(signs)
        terms = (self.factor.unsqueeze(1) * signs).gather(2, rank)
        before = (terms.cumsum(2) - terms).gather(2, rank)
        return self.diagonal.unsqueeze(1) * signs - self.p.unsqueeze(1) * before


def _swapped(p: Tensor) -> Tensor:
    """The order of classes in which the likeliest one and the last one have changed places."""
    last = p.shape[1] - 1
    best = p.argmax(1, keepdim=True)
    order = torch.arange(last + 1, device=p.device).view(1, -1, 1).expand_as(p)
    return torch.where(order == best, last, order).scatter(1, torch.full_like(best, last), best)
