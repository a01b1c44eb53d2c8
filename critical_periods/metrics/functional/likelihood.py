"""What a network's outputs say about targets: losses of three likelihoods, and what fits them."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError
from critical_periods.core.project import Likelihood

# How far the sum of a row of probabilities may be from 1, by rounding.
_ROUNDING = {torch.float16: 1e-2, torch.bfloat16: 5e-2}


def mean_loss(outputs: Tensor, target: Tensor, likelihood: Likelihood = "categorical") -> Tensor:
    """The mean over samples of -log p(y|x), in nats, up to a constant of y.

    - ``categorical``: -log softmax(z)_y, cross-entropy; soft targets [B, K] weigh the classes. Of
      outputs [B, K, ...] it is the sum over all places.
    - ``bernoulli``: Σ_k [log(1 + exp z_k) - y_k z_k] over K labels.
    - ``gaussian``: Σ_k (y_k - z_k)² / 2, without the constant log(2π)/2 a dimension.

    Args:
        outputs: z, [B, K], or [B, K, ...] of a class at each place, such as class maps; of the last
            two likelihoods [B] or any [B, ...].
        target: class numbers [B] ([B, ...] at places) or soft targets [B, K]; otherwise as many
            numbers as outputs.
        likelihood: one of the three.

    Example:
        >>> mean_loss(torch.zeros(2, 3), torch.zeros(2, 3), "bernoulli")  # 3 log 2
        tensor(2.0794)
        >>> mean_loss(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0]), "gaussian")
        tensor(1.)
    """
    if likelihood == "categorical":
        if not target.is_floating_point():
            target = target.long().reshape(outputs[:, 0].shape)
        return F.cross_entropy(outputs, target) * outputs[0, 0].numel()
    target = target.reshape(outputs.shape).to(outputs.dtype)
    if likelihood == "bernoulli":
        total = F.binary_cross_entropy_with_logits(outputs, target, reduction="sum")
    else:
        total = F.mse_loss(outputs, target, reduction="sum") / 2
    return total / len(outputs)


def check_outputs(outputs: Any, samples: int, likelihood: Likelihood) -> None:
    """Raises a UserError where outputs cannot be what the likelihood takes.

    Example:
        >>> check_outputs(torch.full((5, 2), 0.5), 5, "categorical")
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: network returned probabilities: the rows of shape
        [5, 2] sum to one, but the likelihood 'categorical' is of logits, before any softmax; say
        how they become logits, such as Project(logits=torch.log).
    """
    shape = list(outputs.shape) if isinstance(outputs, Tensor) else None
    if shape is None:
        raise UserError(
            f"network returned a {type(outputs)} for {samples} samples; say which part of it are "
            "the logits, such as Project(logits='logits') or Project(logits=0)."
        )
    is_float = outputs.is_floating_point()
    if shape[:1] != [samples] or not is_float:
        raise UserError(
            f"network returned shape {shape} of {outputs.dtype} for {samples} samples; the "
            f"likelihood {likelihood!r} is of one tensor of floats [B, ...]."
        )
    if likelihood != "categorical":
        return
    if len(shape) < 2 or shape[1] < 2:
        raise UserError(
            f"network returned shape {shape} for {samples} samples; the likelihood 'categorical' "
            "needs one tensor of logits [B, K], or [B, K, ...] of a class at each pixel, and at "
            "least two classes; for one logit of two classes, or K labels, set "
            "Project(likelihood='bernoulli'), for numbers 'gaussian'."
        )
    rounding = _ROUNDING.get(outputs.dtype, 1e-4)
    sums = outputs.detach().double().sum(1)
    if samples and bool((outputs >= 0).all() & ((sums - 1).abs() < rounding).all()):
        raise UserError(
            f"network returned probabilities: the rows of shape {shape} sum to one, but the "
            "likelihood 'categorical' is of logits, before any softmax; say how they become "
            "logits, such as Project(logits=torch.log)."
        )
    lengths = outputs.detach().double().norm(dim=1)
    if samples > 1 and bool(((lengths - 1).abs() < 1e-4).all()):
        raise UserError(
            f"network returned rows of length one, shape {shape}, which are an embedding's and no "
            "logits; name the module or the function that gives logits, such as "
            "Project(logits=...), or set Project(likelihood='gaussian')."
        )


def check_target(outputs: Tensor, target: Tensor, likelihood: Likelihood) -> None:
    """Raises a UserError where targets cannot be what the outputs predict.

    Args:
        outputs: of some samples, as :func:`check_outputs` takes them.
        target: of these or more samples.
        likelihood: one of the three.

    Example:
        >>> check_target(torch.zeros(2, 4), torch.tensor([0, 7]), "categorical")
        Traceback (most recent call last):
        ...
        critical_periods.core.errors.UserError: targets run from 0 to 7 but logits have 4 classes;
        give targets from 0 to 3.
    """
    shape, wanted = list(target.shape), list(outputs.shape)
    if likelihood != "categorical":
        if target[:1].numel() != outputs[:1].numel():
            raise UserError(
                f"targets have shape {shape} of {target.dtype} but outputs {wanted}; the "
                f"likelihood {likelihood!r} is of as many numbers a sample."
            )
        if likelihood == "bernoulli" and bool(((target < 0) | (target > 1)).any()):
            raise UserError(
                f"targets run from {target.min():.4g} to {target.max():.4g}; the likelihood "
                "'bernoulli' is of labels 0 and 1."
            )
        return
    if is_soft(target, outputs):
        return
    if target.is_floating_point():
        raise UserError(
            f"targets have shape {shape} of {target.dtype}, which are no class numbers; for "
            "labels 0 and 1 set Project(likelihood='bernoulli'), for numbers 'gaussian', or say "
            "where the classes are, such as Project(target='label')."
        )
    check_places(outputs, target)
    if ((target < 0) | (target >= wanted[1])).any():
        raise UserError(
            f"targets run from {target.min()} to {target.max()} but logits have {wanted[1]} "
            f"classes; give targets from 0 to {wanted[1] - 1}."
        )


def is_soft(target: Tensor, outputs: Tensor) -> bool:
    """Whether targets are probabilities of at most as many classes as there are logits, [B, K]."""
    wanted = list(outputs.shape)
    if not target.is_floating_point() or target.ndim != 2 or len(wanted) != 2:
        return False
    sums = target.double().sum(1)
    is_probability = (target >= 0).all() & ((sums - 1).abs() < 1e-2).all()
    return target.shape[1] <= wanted[1] and bool(is_probability)


def check_places(outputs: Tensor, target: Tensor) -> None:
    """Raises a UserError unless targets are as many class numbers as logits [B, K, ...] are of.

    That tells them from logits whose classes are on another axis, such as a language model's.
    """
    shape, wanted = list(target.shape), list(outputs.shape)
    if shape[1:] == wanted[2:] or (len(wanted) > 2 and shape[1:] == [1, *wanted[2:]]):
        return
    if len(wanted) == 2:
        raise UserError(
            f"targets have shape {shape} of {target.dtype}; the likelihood 'categorical' needs "
            "class numbers [B], and K labels Project(likelihood='bernoulli')."
        )
    raise UserError(
        f"targets have shape {shape} of {target.dtype} but outputs {wanted}, which look like "
        "logits of each pixel or token, [B, K, ...], and need class numbers "
        f"{[shape[0], *wanted[2:]]}; say where these are, such as Project(target='mask'), or make "
        "logits [B, K] of one class a sample, or move classes to the second axis, by a function in "
        "Project(logits=...)."
    )
