"""Square roots of the covariance of scores, which are what the Fisher information is made of."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from critical_periods.core.project import Likelihood


class ScoreRoot(NamedTuple):
    """A matrix S for each sample with S Sᵀ = Cov(∇_z log p(y|z)), z the K outputs of a sample.

    - ``categorical``: diag(p) - p pᵀ. With the p in descending order, q_j = Σ_(i > j) p_i and
      h_j = p_j / (p_j + q_j), column j of K - 1 has √(h_j q_j) at place j and -p_i √(h_j / q_j) at
      i > j;
    - ``bernoulli``: √(p (1 - p)) on the diagonal; ``gaussian``: 1.

    Any order of classes gives such a matrix. In the descending one the columns of a sure sample are
    nearly orthogonal, so that random signs ε give ||(S ε)ᵀ J||² of less variance.

    Source of the first: Tanabe & Sagae, *J. R. Stat. Soc. B* 54 (1992).

    Attributes:
        p: probabilities [B, K, places] in that order, float64; 0 where there is nothing off the
            diagonal.
        diagonal: of the matrix.
        factor: -S_ij / p_i of column j.
        rank: of each class in that order.
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
            >>> p = torch.tensor([[0.0, 1.0, 3.0]]).double().softmax(1)
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
        p, order = p.sort(dim=1, descending=True, stable=True)
        # Sums of small numbers first, and no subtractions, as all but one p may be near 0, or 0.
        here_on = p.flip(1).cumsum(1).flip(1)
        after = torch.cat([here_on[:, 1:], torch.zeros_like(p[:, :1])], 1)
        hazard = (p / here_on).nan_to_num()
        factor = (hazard / after).sqrt().nan_to_num(posinf=0.0)
        columns = (p.shape[1] - 1) * p.shape[2]
        return cls(p, (hazard * after).sqrt(), factor, order.argsort(1), columns)

    def column(self, number: int) -> Tensor:
        """A column, shaped like the outputs with their places in one dimension."""
        classes, places = (torch.arange(n, device=self.p.device) for n in self.p.shape[-2:])
        of, place = divmod(number, len(places))
        below = -self.p * self.factor[..., of : of + 1, :]
        behind = classes.unsqueeze(1) - of
        values = torch.where(behind == 0, self.diagonal, torch.where(behind > 0, below, 0))
        return (values * (places == place)).gather(-2, self.rank)

    def times(self, signs: Tensor) -> Tensor:
        """S ε of signs [B, draws, K, places], one for each column at its place."""
        terms = self.factor.unsqueeze(1) * signs
        before = torch.cat([torch.zeros_like(terms[:, :, :1]), terms.cumsum(2)[:, :, :-1]], 2)
        values = self.diagonal.unsqueeze(1) * signs - self.p.unsqueeze(1) * before
        return values.gather(2, self.rank.unsqueeze(1).expand_as(signs))
