"""Usable information of a network's outputs about the targets, in bits."""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from critical_periods.core.errors import UserError
from critical_periods.core.project import Likelihood
from critical_periods.metrics.functional.likelihood import (
    check_outputs,
    check_target,
    is_soft,
    mean_loss,
)


def usable_information(
    logits: Tensor, target: Tensor, likelihood: Likelihood = "categorical"
) -> Tensor:
    """Usable information of a network's outputs about the targets, in bits.

        I = H(Y) - L

    with L the mean loss -log2 p(y|x) and H(Y) that of the best prediction that is the same for
    all samples. It is H(Y) for perfect predictions, at most 0 for a constant one, and has no lower
    bound. By likelihood, with logits or means z:

    - ``categorical``: H(Y) = -Σ_k p_k log2 p_k is the entropy of the targets, p_k the frequency
      of class k, and L the cross-entropy. Of logits [N, K, ...], such as class maps, it is the sum
      over all places of the information about the class there.
    - ``bernoulli``: the sum over K labels of each label's information, with
      H(Y_k) = -p_k log2 p_k - (1 - p_k) log2 (1 - p_k), p_k the frequency of label k.
    - ``gaussian``, of unit variance: L = Σ_k [log(2π)/2 + (y_k - z_k)²/2] / log 2, and H(Y) is that
      at z_k = mean y_k, so

          I = Σ_k [Var(y_k) - mean (y_k - z_k)²] / (2 log 2),

      the reduction of the squared error (Var is that of the population). Targets in other units
      have another information: scale them by the noise that you assume.

    Source: Kleinman, Achille & Soatto (CVPR 2023), section 4.1 and appendix A.5, Fig. 9 and 10; of
    other likelihoods Xu et al. (ICLR 2020), *A Theory of Usable Information Under Computational
    Constraints*.

    Args:
        logits: [N, K] or [N, K, ...]; of ``bernoulli`` and ``gaussian`` [N] or any [N, ...].
        target: class indices, integers [N] or [N, ...], or soft targets [N, K], of which p_k is the
            mean; of the other likelihoods as many numbers as ``logits``.
        likelihood: what the outputs say about the targets.

    Returns:
        A float64 scalar; NaN for no samples.

    Raises:
        UserError: the shapes do not fit, a target is not one of the K classes, or the outputs are
            probabilities.

    Example:
        >>> target = torch.tensor([0, 1, 2, 3])
        >>> usable_information(torch.eye(4) * 100, target)  # certain and right: log2(4) bits
        tensor(2., dtype=torch.float64)
        >>> usable_information(torch.zeros(4, 4), target)  # uniform
        tensor(0., dtype=torch.float64)
        >>> usable_information(torch.tensor([-99.0, 99.0]), torch.tensor([0, 1]), "bernoulli")
        tensor(1., dtype=torch.float64)
    """
    return information(*information_sums(logits, target, likelihood), likelihood)


def information_sums(
    logits: Tensor, target: Tensor, likelihood: Likelihood = "categorical"
) -> tuple[Tensor, Tensor]:
    """The two sums of :func:`usable_information`, whose arguments and errors these are.

    Returns:
        What H(Y) is of, and the summed loss in nats, a float64 scalar. H(Y) is of how often each
        class occurs, int64 [K], or [K, places] at each place, or float64 of soft targets; of each
        label's zeros and ones, float64 [2, K]; or of the number, sum and sum of squares of each
        dimension, float64 [3, K].

    Example:
        >>> information_sums(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        (tensor([1, 2]), tensor(2.0794, dtype=torch.float64))
    """
    if likelihood == "categorical":
        soft = logits.shape == target.shape and is_soft(target, logits)
        is_hard = target.shape == logits.shape[:1] or logits.ndim > 2
        if logits.ndim < 2 or not (soft or (is_hard and not target.is_floating_point())):
            raise UserError(
                f"logits have shape {list(logits.shape)} and targets {list(target.shape)} of "
                f"{target.dtype}; give logits [N, K] and soft targets [N, K] or integer class "
                "indices [N], or set the likelihood: 'bernoulli' for one logit and for labels 0 "
                "and 1, 'gaussian' for numbers."
            )
        check_outputs(logits, len(target), likelihood)
        if soft:
            loss = cross_entropy(logits.double(), target.double(), reduction="sum")
            return target.double().sum(0), loss
        check_target(logits, target, likelihood)
        target = target.long().reshape(logits[:, 0].shape)
        loss = cross_entropy(logits.double(), target, reduction="sum")
        if target.ndim == 1:
            return torch.bincount(target, minlength=logits.shape[1]), loss
        target = target.flatten(1)
        counts = target.new_zeros(logits.shape[1], target.shape[1])
        return counts.scatter_add_(0, target, torch.ones_like(target)), loss
    check_outputs(logits, len(target), likelihood)
    check_target(logits, target, likelihood)
    wide = target.reshape(len(target), -1).double()
    powers = [1 - wide, wide] if likelihood == "bernoulli" else [wide**0, wide, wide.square()]
    sums = torch.stack([power.sum(0) for power in powers])
    return sums, mean_loss(logits.double(), target, likelihood) * len(target)


def information(counts: Tensor, loss: Tensor, likelihood: Likelihood = "categorical") -> Tensor:
    """Usable information in bits, a float64 scalar, from the sums of :func:`information_sums`.

    Example:
        >>> information(torch.tensor([2, 2]), torch.tensor(0.0).double())
        tensor(1., dtype=torch.float64)
    """
    if likelihood == "gaussian":
        samples, total, squares = counts
        spread = squares / samples - (total / samples).square()
        return (spread.sum() / 2 - loss / samples[0]) / math.log(2)
    number = counts.sum() if counts.ndim == 1 else counts[:, 0].sum()
    frequency = counts.double() / number
    entropy = -torch.special.xlogy(frequency, frequency).sum()
    return (entropy - loss / number) / math.log(2)
