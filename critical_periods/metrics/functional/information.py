"""Usable information of logits about the targets, in bits."""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from critical_periods.core.errors import UserError


def usable_information(logits: Tensor, target: Tensor) -> Tensor:
    """Usable information of the logits about the targets, in bits.

        I = H(Y) - L_CE

    with H(Y) = -Σ_k p_k log2 p_k the entropy of the targets, p_k the frequency of class k, and L_CE
    the mean cross-entropy, both in bits. It is H(Y) for perfect predictions, at most 0 for a
    constant one, and has no lower bound.

    Source: Kleinman, Achille & Soatto (CVPR 2023), section 4.1 and appendix A.5, Fig. 9 and 10.

    Args:
        logits: [N, K].
        target: class indices, integers [N].

    Returns:
        A float64 scalar; NaN for no samples.

    Raises:
        UserError: the shapes do not fit, or a target is not one of the K classes.

    Example:
        >>> target = torch.tensor([0, 1, 2, 3])
        >>> usable_information(torch.eye(4) * 100, target)  # certain and right: log2(4) bits
        tensor(2., dtype=torch.float64)
        >>> usable_information(torch.zeros(4, 4), target)  # uniform
        tensor(0., dtype=torch.float64)
    """
    return information(*information_sums(logits, target))


def information_sums(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The two sums of :func:`usable_information`, whose arguments and errors these are.

    Returns:
        How often each class occurs, int64 [K], and the summed cross-entropy in nats, a float64
        scalar.

    Example:
        >>> information_sums(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
        (tensor([1, 2]), tensor(2.0794, dtype=torch.float64))
    """
    if logits.ndim != 2 or target.shape != logits.shape[:1] or target.is_floating_point():
        raise UserError(
            f"logits have shape {list(logits.shape)} and targets {list(target.shape)} of "
            f"{target.dtype}; give logits [N, K] and integer class indices [N]."
        )
    classes = logits.shape[1]
    if ((target < 0) | (target >= classes)).any():
        raise UserError(
            f"targets run from {target.min()} to {target.max()} but logits have {classes} classes; "
            f"give targets from 0 to {classes - 1}."
        )
    counts = torch.bincount(target, minlength=classes)
    return counts, cross_entropy(logits.double(), target.long(), reduction="sum")


def information(counts: Tensor, loss: Tensor) -> Tensor:
    """Usable information in bits, a float64 scalar, from the sums of :func:`information_sums`.

    Example:
        >>> information(torch.tensor([2, 2]), torch.tensor(0.0).double())
        tensor(1., dtype=torch.float64)
    """
    frequency = counts.double() / counts.sum()
    entropy = -torch.special.xlogy(frequency, frequency).sum()
    return (entropy - loss / counts.sum()) / math.log(2)
