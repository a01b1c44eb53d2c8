"""Initial weights of a linear network: balanced and aligned with the modes, or small and random."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.checks import Array, checked_strength, singular_modes


def balanced_starts(
    sigma: ArrayLike, a0: float, depth: int = 2, rng: np.random.Generator | None = None
) -> list[Array]:
    """Balanced, aligned weights, for which the closed form holds: every mode has strength a0.

    With Sigma_yx = U S V^T and hidden layers as wide as there are modes,

        W1 = R1 a0^(1/D) V^T,  W2 = R2 a0^(1/D) R1^T,  …,  WD = U a0^(1/D) R(D-1)^T,

    so that WD … W1 = U a0 V^T. The R are orthogonal and arbitrary: they choose the hidden units
    that carry a mode, and the weights from sensors to tasks do not depend on them. Modes of s = 0
    are those that :func:`deep_weights` takes for the same matrix.

    Source: Saxe et al. (2013, 2019).

    Args:
        sigma: Sigma_yx, [outputs, inputs].
        a0: the strength of every mode.
        depth: D, how many weight matrices there are.
        rng: draws the R; without it they are the identity, a unit for each mode.

    Returns:
        The weights from the first layer to the last, float64 [width out, width in] each.

    Raises:
        UserError: sigma is no finite matrix, the depth is less than 1, or a0 is not positive
            (for depth 1: negative).

    Example:
        >>> w1, w2 = balanced_starts([[0.0, 2.0], [1.0, 0.0]], a0=0.25)
        >>> w2 @ w1
        array([[0.  , 0.25],
               [0.25, 0.  ]])
    """
    if depth < 1:
        raise UserError(f"depth is {depth}; give the number of weight matrices, at least 1.")
    scale = checked_strength(a0, deep=depth > 1) ** (1 / depth)
    u, s, vt = singular_modes(sigma)
    size = (len(s), len(s))
    hidden = [
        np.eye(len(s)) if rng is None else np.linalg.qr(rng.standard_normal(size))[0]
        for _ in range(depth - 1)
    ]
    bases = [vt.T, *hidden, u]
    return [scale * after @ before.T for before, after in pairwise(bases)]


def random_starts(widths: Sequence[int], std: float, rng: np.random.Generator) -> list[Array]:
    """Independent Gaussian weights of one standard deviation: neither aligned nor balanced.

    In a network with one hidden layer of width h a mode grows from the mean of W1 v and W2^T u,
    whose expected square is h std² / 2. So std = sqrt(2 a0 / h) starts the modes from a0 on
    average, with a relative scatter of sqrt(2 / h).

    Args:
        widths: of all layers, inputs first, outputs last; depth D has D + 1 of them.
        std: the standard deviation of every weight.
        rng: draws them.

    Returns:
        See :func:`balanced_starts`.

    Raises:
        UserError: fewer than two widths, a width less than 1, or a std that is negative or not
            finite.

    Example:
        >>> w1, w2 = random_starts([8, 16, 5], std=0.01, rng=np.random.default_rng(0))
        >>> w1.shape, w2.shape
        ((16, 8), (5, 16))
    """
    if len(widths) < 2 or min(widths) < 1:
        raise UserError(f"widths are {list(widths)}; give inputs, hidden ones if any, and outputs.")
    if not 0 <= std < np.inf:
        raise UserError(f"std is {std}; give a finite number from 0.")
    return [std * rng.standard_normal((after, before)) for before, after in pairwise(widths)]
