"""How able to learn a network still is: dormant units, ranks of features, gradients that agree."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from critical_periods.core.errors import UserError


def dormant(means: Tensor, threshold: float = 0.025) -> Tensor:
    """Which units of a layer are dormant: E|h_i| ≤ τ · mean over k of E|h_k|.

    Source: Sokar et al., *The Dormant Neuron Phenomenon in Deep Reinforcement Learning* (ICML
    2023).

    Args:
        means: E|h|, [units].
        threshold: τ.

    Example:
        >>> dormant(torch.tensor([0.0, 0.01, 1.0, 2.0]))
        tensor([ True,  True, False, False])
    """
    return means <= threshold * means.mean()


def unit_features(output: Tensor) -> Tensor:
    """The features [B, units] of what a layer gives, as ranks and means over channels take them.

    Units are the channels of maps [B, C, H, W, …], averaged over positions; the last axis of tokens
    [B, T, D], averaged over tokens; and the second axis of [B, D].

    Example:
        >>> unit_features(torch.ones(2, 3, 4, 4)).shape, unit_features(torch.ones(2, 7, 5)).shape
        (torch.Size([2, 3]), torch.Size([2, 5]))
    """
    if output.ndim < 2:
        raise UserError(f"features have shape {list(output.shape)}; they must be [B, units, ...].")
    if output.ndim == 3:
        return output.mean(1)
    return output.mean(tuple(range(2, output.ndim))) if output.ndim > 3 else output


def effective_rank(features: Tensor) -> Tensor:
    """How many directions features take, weighed: exp of the entropy of the singular values.

        exp(-Σ_k p_k log p_k),    p_k = σ_k / Σ_j σ_j,

    from 1, where all lie on one line, to min(B, units). Source: Roy & Vetterli, *The effective
    rank* (EUSIPCO 2007), as Dohare et al. (Nature 2024) measure plasticity by it.

    Args:
        features: [B, units].

    Returns:
        A number, float64; 0 where all features are 0.

    Example:
        >>> effective_rank(torch.eye(4)), effective_rank(torch.ones(4, 4)).round()
        (tensor(4., dtype=torch.float64), tensor(1., dtype=torch.float64))
    """
    values = torch.linalg.svdvals(features.double())
    if not values.sum() > 0:
        return values.new_zeros(())
    shares = values / values.sum()
    return torch.special.entr(shares).sum().exp()


def stable_rank(features: Tensor) -> Tensor:
    """The squared Frobenius norm over the squared spectral norm: Σ_k σ_k² / σ_1².

    Never above the rank, and little changed by small singular values. Source: Rudelson & Vershynin,
    *Sampling from large matrices* (2007).

    Args:
        features: [B, units].

    Returns:
        A number, float64; 0 where all features are 0.

    Example:
        >>> stable_rank(torch.diag(torch.tensor([2.0, 1.0])))
        tensor(1.2500, dtype=torch.float64)
    """
    squares = torch.linalg.svdvals(features.double()).square()
    return squares.sum() / squares.max() if squares.sum() > 0 else squares.new_zeros(())


def weight_distance(weights: Sequence[Tensor], start: Sequence[Tensor]) -> Tensor:
    """The Euclidean distance of weights from where they started: sqrt(Σ (w - w_0)²), float64.

    Example:
        >>> weight_distance([torch.tensor([3.0, 1.0])], [torch.tensor([0.0, 5.0])])
        tensor(5., dtype=torch.float64)
    """
    pairs = zip(weights, start, strict=True)
    return get_total_norm([one.double() - other.double() for one, other in pairs])


def gradient_agreement(gradients: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the mean cosine between the gradients of two batches.

    Over all pairs i ≠ j, cos(g_i, g_j) = <g_i, g_j> / (|g_i| |g_j|), 0 where one of them is 0. The
    least one is what Sankararaman et al. (*The Impact of Neural Network Overparameterization on
    Gradient Confusion*, ICML 2020) measure gradient confusion by: confusion is high, and learning
    slow, where it lies far below 0.

    Args:
        gradients: of at least two batches, [batches, weights].

    Returns:
        Both cosines, float64.

    Raises:
        UserError: there are fewer than two gradients.

    Example:
        >>> gradient_agreement(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
        (tensor(-1., dtype=torch.float64), tensor(-0.3333, dtype=torch.float64))
    """
    if len(gradients) < 2:
        raise UserError("gradients are of one batch; give those of at least two to compare.")
    wide = gradients.double()
    products = wide @ wide.T
    lengths = products.diagonal().sqrt()
    scale = lengths[:, None] * lengths
    cosines = torch.where(scale > 0, products / scale.clamp(min=torch.finfo(scale.dtype).tiny), 0.0)
    above = cosines[tuple(torch.triu_indices(len(gradients), len(gradients), 1))]
    return above.min(), above.mean()
