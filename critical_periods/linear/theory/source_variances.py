"""Source variances in closed form, of units that are weighted sums of correlated views."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.checks import Array, checked_matrix


def views_covariance(common: float, noises: Sequence[float]) -> Array:
    """The covariance [V, V] of views that share a part: x_j = x_0 + n_j, all independent.

        Cov(x_j, x_k) = Var(x_0) + Var(n_j) [j = k].

    Source: Kleinman, Achille & Soatto (CVPR 2023), appendix A.1, where there are two views.

    Args:
        common: Var(x_0).
        noises: Var(n_j) of each view.

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
    """Gaussian samples x_j = x_0 + n_j, float64 [V, count], of views that share a part.

    Source, variances and errors are those of :func:`views_covariance`.

    Example:
        >>> sample_views(1.0, [0.5, 2.0], 3, np.random.default_rng(0)).shape
        (2, 3)
    """
    views_covariance(common, noises)
    shared = np.sqrt(common) * rng.standard_normal(count)
    own = np.sqrt(np.asarray(noises, dtype=np.float64))[:, None]
    return shared + own * rng.standard_normal((len(own), count))


def marginal_variances(weights: ArrayLike, covariance: ArrayLike) -> Array:
    """Source variances of units z = sum_j w_j x_j with each view drawn from its marginal p(x_j).

        SV_j = w_j² Var(x_j),

    the variance of z when view j is drawn anew and the others stay fixed. This is what
    :func:`critical_periods.metrics.functional.source_variance` estimates.

    Source: Kleinman, Achille & Soatto (CVPR 2023), section 3 ("sampling from a ~ p(a)").

    Args:
        weights: w_j, view by view, [V, ...].
        covariance: of the views, [V, V].

    Returns:
        float64 [V, ...].

    Raises:
        UserError: the covariance is not symmetric and positive semi-definite, or of another number
            of views than the weights.

    Example:
        >>> marginal_variances([[0.75], [0.25]], views_covariance(1.0, [1.0, 1.0]))
        array([[1.125],
               [0.125]])
    """
    w, cov = checked_weights(weights, covariance)
    return _scaled(np.diag(cov), w)


def conditional_variances(weights: ArrayLike, covariance: ArrayLike) -> Array:
    """Source variances of units z = sum_j w_j x_j with each view drawn given the others.

        SV_j = Var(z | x_k, k != j) = w_j² Var(x_j | x_k, k != j),

    for Gaussian views with covariance C and o the other views

        Var(x_j | x_o) = C_jj - C_jo C_oo^-1 C_oj,

    which is 1 / (C^-1)_jj where C can be inverted. For x_a = x_0 + n_a and x_b = x_0 + n_b it is

        Var(x_a | x_b) = Var(x_0) + Var(n_a) - Var(x_0)² / (Var(x_0) + Var(n_b)).

    For two views with correlation rho, Var(a | b) = Var(a) (1 - rho²) and
    Var(b | a) = Var(b) (1 - rho²), so the RSV equals that of :func:`marginal_variances`. For three
    views or more the two differ, unless the views are independent or have equal noise.

    Source: Kleinman, Achille & Soatto (CVPR 2023), appendix A.1 and A.2. Arguments, result and
    errors are those of :func:`marginal_variances`.

    Example:
        >>> conditional_variances([[0.75], [0.25]], views_covariance(1.0, [1.0, 1.0]))
        array([[0.84375],
               [0.09375]])
    """
    w, cov = checked_weights(weights, covariance)
    left = []
    for view in range(len(cov)):
        others = np.delete(np.arange(len(cov)), view)
        explained = cov[view, others] @ np.linalg.pinv(cov[np.ix_(others, others)], hermitian=True)
        left.append(cov[view, view] - explained @ cov[others, view])
    return _scaled(np.maximum(left, 0), w)


def relative_variances(variances: ArrayLike) -> Array:
    """Relative source variance (RSV): signed for two views, shares for more.

        RSV = (SV_a - SV_b) / (SV_a + SV_b)    or    SV_j / sum_k SV_k,

    so for z = w x_a + (1-w) x_b at equal noise RSV = (w² - (1-w)²) / (w² + (1-w)²). The same as
    :func:`critical_periods.metrics.functional.relative_source_variance`, for NumPy.

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


def checked_weights(weights: ArrayLike, covariance: ArrayLike) -> tuple[Array, Array]:
    """Weights [V, ...] and the covariance [V, V] of as many views, as float64.

    Raises:
        UserError: see :func:`marginal_variances`.
    """
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


def _scaled(variances: Array, weights: Array) -> Array:
    """Var_j · w_j², [V, ...]."""
    return variances.reshape(-1, *[1] * (weights.ndim - 1)) * weights**2
