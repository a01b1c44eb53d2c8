"""Relative source variance in closed form, for units that add up correlated views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta as beta_distribution

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.checks import Array, checked_matrix


def views_covariance(common: float, noises: Sequence[float]) -> Array:
    """The covariance of views that share a part: x_j = x_0 + n_j, all independent.

        Cov(x_j, x_k) = Var(x_0) + Var(n_j) [j = k].

    Source: Kleinman, Achille & Soatto (CVPR 2023), appendix A.1, where there are two views.

    Args:
        common: Var(x_0).
        noises: Var(n_j) of each view.

    Returns:
        The covariance, float64 [V, V].

    Raises:
        UserError: fewer than two views, or a variance that is negative or not finite.

    Example:
        >>> views_covariance(1.0, [0.5, 2.0])
        array([[1.5, 1. ],
               [1. , 3. ]])
    """
    variances = np.array([common, *noises], dtype=np.float64)
    if len(variances) < 3 or not (np.isfinite(variances).all() and (variances >= 0).all()):
        raise UserError(
            f"common is {common} and noises are {list(noises)}; "
            "give variances from 0, of two views or more."
        )
    return variances[0] + np.diag(variances[1:])


def sample_views(
    common: float, noises: Sequence[float], count: int, rng: np.random.Generator
) -> Array:
    """Gaussian samples of views that share a part: x_j = x_0 + n_j.

    Source: Kleinman, Achille & Soatto (CVPR 2023), appendix A.1.

    Args:
        common: Var(x_0).
        noises: Var(n_j) of each view.
        count: how many samples.
        rng: draws them.

    Returns:
        The samples, float64 [V, count].

    Raises:
        UserError: see :func:`views_covariance`.

    Example:
        >>> sample_views(1.0, [0.5, 2.0], 3, np.random.default_rng(0)).shape
        (2, 3)
    """
    views_covariance(common, noises)
    shared = np.sqrt(common) * rng.standard_normal(count)
    own = np.sqrt(np.asarray(noises, dtype=np.float64))[:, None]
    return shared + own * rng.standard_normal((len(own), count))


def marginal_variances(weights: ArrayLike, covariance: ArrayLike) -> Array:
    """Source variances of units z = sum_j w_j x_j as an estimator takes them: x_j ~ p(x_j).

        SV_j = w_j² Var(x_j),

    the variance of z when view j is drawn anew from its marginal and the others stay what they are.
    This is what :func:`critical_periods.metrics.functional.source_variance` measures.

    Source: Kleinman, Achille & Soatto (CVPR 2023), section 3 ("sampling from a ~ p(a)").

    Args:
        weights: w_j, view by view, [V, ...].
        covariance: of the views, [V, V].

    Returns:
        The source variances, float64 [V, ...].

    Raises:
        UserError: the covariance is not one, or of another number of views.

    Example:
        >>> marginal_variances([[0.75], [0.25]], views_covariance(1.0, [1.0, 1.0]))
        array([[1.125],
               [0.125]])
    """
    w, cov = _checked(weights, covariance)
    return _times(np.diag(cov), w)


def conditional_variances(weights: ArrayLike, covariance: ArrayLike) -> Array:
    """Source variances of units z = sum_j w_j x_j as the closed form takes them: given the others.

        SV_j = Var(z | x_k, k != j) = w_j² Var(x_j | x_k, k != j),

    for Gaussian views with C their covariance and o the other views

        Var(x_j | x_o) = C_jj - C_jo C_oo^-1 C_oj,

    which is 1 / (C^-1)_jj where C can be inverted. For x_a = x_0 + n_a and x_b = x_0 + n_b it is

        Var(x_a | x_b) = Var(x_0) + Var(n_a) - Var(x_0)² / (Var(x_0) + Var(n_b)).

    Two views have the same correlation rho whichever is looked at, Var(a | b) = Var(a) (1 - rho²)
    and Var(b | a) = Var(b) (1 - rho²), hence Var(a | b) / Var(b | a) = Var(a) / Var(b): the
    RSV is that of :func:`marginal_variances` at any noise. With three views or more that holds no
    longer, unless they are independent or alike.

    Source: Kleinman, Achille & Soatto (CVPR 2023), appendix A.1 and A.2.

    Args:
        weights: w_j, view by view, [V, ...].
        covariance: of the views, [V, V].

    Returns:
        The source variances, float64 [V, ...].

    Raises:
        UserError: the covariance is not one, or of another number of views.

    Example:
        >>> conditional_variances([[0.75], [0.25]], views_covariance(1.0, [1.0, 1.0]))
        array([[0.84375],
               [0.09375]])
    """
    w, cov = _checked(weights, covariance)
    left = []
    for view in range(len(cov)):
        others = np.delete(np.arange(len(cov)), view)
        explained = cov[view, others] @ np.linalg.pinv(cov[np.ix_(others, others)], hermitian=True)
        left.append(cov[view, view] - explained @ cov[others, view])
    return _times(np.maximum(left, 0), w)


def relative_variances(variances: ArrayLike) -> Array:
    """Source variances made relative: the RSV of two views, each one's share of more.

        RSV = (SV_a - SV_b) / (SV_a + SV_b)    or    SV_j / sum_k SV_k,

    for z = w x_a + (1-w) x_b at equal noise RSV = (w² - (1-w)²) / (w² + (1-w)²). It is the
    closed form's own :func:`critical_periods.metrics.functional.relative_source_variance`.

    Source: Kleinman, Achille & Soatto (CVPR 2023), section 3, appendix A.1 and A.2.

    Args:
        variances: source variances, view by view, [V, ...].

    Returns:
        The signed RSV [...] of two views, the shares [V, ...] of more; NaN where nothing varies.

    Raises:
        UserError: fewer than two views.

    Example:
        >>> relative_variances([[0.84375], [0.09375]])
        array([0.8])
        >>> relative_variances([[3.0], [1.0], [0.0]])
        array([[0.75],
               [0.25],
               [0.  ]])
    """
    sv = np.asarray(variances, dtype=np.float64)
    if sv.ndim == 0 or len(sv) < 2:
        raise UserError(f"variances have shape {list(sv.shape)}; give those of two views or more.")
    with np.errstate(invalid="ignore"):
        relative: Array = (sv[0] - sv[1] if len(sv) == 2 else sv) / sv.sum(0)
    return relative


@dataclass(frozen=True)
class BetaWeights:
    """Units z = w x_a + (1-w) x_b with w ~ Beta(alpha, beta), the second half of them reversed.

    Reversed units are z = w x_b + (1-w) x_a. So the units mix both views (alpha = beta), or there
    are two populations, each of which listens to one view.

    Source: Kleinman, Achille & Soatto (CVPR 2023), appendix A.1.

    Args:
        alpha: of the Beta distribution.
        beta: of the Beta distribution.
        reversed_half: whether half of the units are reversed, or none.

    Raises:
        UserError: alpha or beta is not positive.

    Example:
        >>> weights = BetaWeights(5, 20).sample(4, np.random.default_rng(0))
        >>> weights.round(2)
        array([[0.18, 0.12, 0.84, 0.92],
               [0.82, 0.88, 0.16, 0.08]])
    """

    alpha: float
    beta: float
    reversed_half: bool = True

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and self.beta > 0):
            raise UserError(f"alpha is {self.alpha}, beta {self.beta}; both must be positive.")

    def sample(self, units: int, rng: np.random.Generator) -> Array:
        """The weights of some units.

        Args:
            units: how many; the last ``units // 2`` are reversed.
            rng: draws them.

        Returns:
            Of view a and of view b, float64 [2, units].
        """
        of_a = rng.beta(self.alpha, self.beta, units)
        if self.reversed_half:
            half = units - units // 2
            of_a[half:] = 1 - of_a[half:]
        return np.stack([of_a, 1 - of_a])

    def cdf(self, weight: ArrayLike) -> Array:
        """The share of units whose weight of view a is at most this.

        Args:
            weight: from 0 to 1, any shape.

        Returns:
            Probabilities of the same shape.
        """
        w = np.asarray(weight, dtype=np.float64)
        plain: Array = beta_distribution.cdf(w, self.alpha, self.beta)
        if not self.reversed_half:
            return plain
        flipped: Array = beta_distribution.sf(1 - w, self.alpha, self.beta)
        return (plain + flipped) / 2


def rsv_cdf(rsv: ArrayLike, distribution: BetaWeights, covariance: ArrayLike) -> Array:
    """The share of units whose RSV is at most this, in closed form.

    The RSV grows with w, and RSV = r belongs to

        w / (1-w) = sqrt((1+r) Var(x_b) / ((1-r) Var(x_a))),

    so its distribution is that of w there. Differences between the edges of bins are the expected
    shares of a histogram.

    Source: from Kleinman, Achille & Soatto (CVPR 2023), appendix A.1 and Fig. 3.

    Args:
        rsv: r from -1 to 1, any shape.
        distribution: of the weights.
        covariance: of the two views, [2, 2].

    Returns:
        Probabilities of the same shape.

    Raises:
        UserError: an RSV is not from -1 to 1, or the covariance is not one of two views that vary.

    Example:
        >>> alike = views_covariance(1.0, [1.0, 1.0])
        >>> rsv_cdf([-1.0, 0.0, 1.0], BetaWeights(20, 20), alike)
        array([0. , 0.5, 1. ])
    """
    r = np.asarray(rsv, dtype=np.float64)
    _, cov = _checked(np.ones(2), covariance)
    var_a, var_b = np.diag(cov)
    if not (abs(r) <= 1).all():
        raise UserError(f"rsv runs from {r.min()} to {r.max()}; give numbers from -1 to 1.")
    if not (var_a > 0 and var_b > 0):
        raise UserError(f"the views have variances {var_a} and {var_b}; both must be positive.")
    of_a, of_b = np.sqrt((1 + r) * var_b), np.sqrt((1 - r) * var_a)
    return distribution.cdf(of_a / (of_a + of_b))


# The four simulations of Fig. 3; the first is one population alone.
FIGURE_3 = (
    BetaWeights(10, 20, reversed_half=False),
    BetaWeights(1, 20),
    BetaWeights(20, 20),
    BetaWeights(30, 20),
)


def _checked(weights: ArrayLike, covariance: ArrayLike) -> tuple[Array, Array]:
    w, cov = np.asarray(weights, dtype=np.float64), checked_matrix("covariance", covariance)
    if cov.shape != cov.T.shape or not np.allclose(cov, cov.T):
        raise UserError(f"covariance {cov.tolist()} is not symmetric; give one row a view.")
    lowest = np.linalg.eigvalsh(cov)[0]
    if lowest < -1e-12 * np.trace(cov):
        raise UserError(f"covariance has the eigenvalue {lowest}; no views have that one.")
    if w.ndim == 0 or len(w) != len(cov):
        raise UserError(
            f"weights have shape {list(w.shape)}, covariance is of {len(cov)} views; "
            "give one row of weights a view."
        )
    return w, cov


def _times(variances: Array, weights: Array) -> Array:
    return variances.reshape(-1, *[1] * (weights.ndim - 1)) * weights**2
