"""Where an evaluation tells most about the boundary g = 0, by a GP's mean and sd of g."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import norm

Array = NDArray[np.float64]
Learning = Callable[[Array, Array], Array]


def misclassification(mean: Array, sd: Array) -> Array:
    """The probability Φ(-U), U = |mean| / sd, that g has another sign than its mean.

    U is the learning function of AK-MCS; the point of the least U is that of the largest Φ(-U).

    Source: Echard, Gayton & Lemaire, *AK-MCS* (2011).

    Args:
        mean: of g, [n].
        sd: standard deviation of g, [n].

    Returns:
        [n], at most 1/2.

    Example:
        >>> misclassification(np.array([0.0, 2.0, -2.0]), np.array([1.0, 1.0, 0.5])).round(4)
        array([0.5   , 0.0228, 0.    ])
    """
    return ndtr(-abs(mean) / np.maximum(sd, np.finfo(float).tiny))


def expected_feasibility(mean: Array, sd: Array) -> Array:
    """How near 0 g is expected to be: E[max(0, ε - abs(g))], ε = 2 sd.

    Source: Bichon et al., *Efficient global reliability analysis for nonlinear implicit
    performance functions* (2008).

    Args:
        mean: of g, [n].
        sd: standard deviation of g, [n].

    Returns:
        [n], in units of g.

    Example:
        >>> expected_feasibility(np.array([0.0, 2.0]), np.array([1.0, 1.0])).round(3)
        array([1.219, 0.382])
    """
    sd = np.maximum(sd, np.finfo(float).tiny)
    at = -mean / sd
    low, high = at - 2, at + 2
    return (
        mean * (2 * ndtr(at) - ndtr(low) - ndtr(high))
        - sd * (2 * norm.pdf(at) - norm.pdf(low) - norm.pdf(high))
        + 2 * sd * (ndtr(high) - ndtr(low))
    )


def choose(
    learning: Learning,
    mean: Array,
    covariance: Array,
    noise: float,
    count: int,
    cost: Array | Callable[[list[int]], Array],
) -> list[int]:
    """The places of the points to evaluate, the best first.

    One after the other: the largest learning / cost, with the covariance as it will be once the
    points before it are known, which does not depend on their values.

    Args:
        learning: :func:`misclassification` or :func:`expected_feasibility`.
        mean: of g at each candidate, [n].
        covariance: of g at the candidates, [n, n].
        noise: variance of an evaluation.
        count: how many points.
        cost: of evaluating each, [n], or what gives it for the places that are chosen already.
    """
    left = covariance.copy()
    chosen: list[int] = []
    for _ in range(min(count, len(mean))):
        score = learning(mean, np.sqrt(np.maximum(left.diagonal(), 0)))
        score /= cost(chosen) if callable(cost) else cost
        score[chosen] = -1.0
        at = int(score.argmax())
        chosen.append(at)
        left -= np.outer(left[:, at], left[at]) / (left[at, at] + noise)
    return chosen
