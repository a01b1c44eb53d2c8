"""Closed forms of linear learning: each mode over time, with a hidden layer and without."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import exprel

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.checks import (
    Array,
    checked_strength,
    checked_times,
    singular_modes,
)


def deep_strengths(singular_values: ArrayLike, a0: float, times: ArrayLike) -> Array:
    r"""The strength of each mode at each time in a linear network with one hidden layer.

    From a balanced start of strength a0, aligned with the modes, gradient flow on the squared error
    of y = W2 W1 x with white inputs learns every singular mode of Sigma_yx independently,

        tau da/dt = 2 a (s - a),    a(t) = s e^(2st/tau) / (e^(2st/tau) - 1 + s/a0).

    a is small until t = tau ln(s/a0) / 2s and then rises steeply; strong modes are learned first.
    It is computed as

        a(t) = 1 / ((1 - e^(-2st/tau)) / s + e^(-2st/tau) / a0),

    which does not overflow; a mode of s = 0 decays as a0 / (1 + 2 a0 t/tau), the limit of both.

    Source: Saxe, McClelland & Ganguli, *Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks* (2013), and the same, *A mathematical theory of semantic
    development in deep neural networks* (PNAS 2019); used by Kleinman, Achille & Soatto (CVPR
    2023), section 2.

    Args:
        singular_values: s of each mode, [modes].
        a0: the strength of every mode at time 0.
        times: t in units of tau, [T].

    Returns:
        float64 [T, modes].

    Raises:
        UserError: a singular value or a time is negative or not finite, or a0 is not positive.

    Example:
        >>> deep_strengths([2.0, 0.0], a0=0.5, times=[0.0, 1.0, 100.0]).round(3)
        array([[0.5  , 0.5  ],
               [1.896, 0.25 ],
               [2.   , 0.005]])
    """
    s, t = _checked_modes(singular_values), checked_times(times)[:, None]
    exponent = 2 * s * t
    # exprel(-x) = (1 - e^-x) / x, which is 1 at x = 0.
    left: Array = np.exp(-exponent) / checked_strength(a0, deep=True)
    return 1 / (2 * t * exprel(-exponent) + left)


def shallow_strengths(singular_values: ArrayLike, a0: float, times: ArrayLike) -> Array:
    """The strength of each mode at each time in a linear network without a hidden layer.

        tau db/dt = s - b,    b(t) = s (1 - e^(-t/tau)) + a0 e^(-t/tau).

    All modes are learned at the same rate 1/tau, so the entries of W do not depend on each other.
    Source, arguments, result and errors are those of :func:`deep_strengths`, but a0 may be 0.

    Example:
        >>> shallow_strengths([2.0, 0.0], a0=0.5, times=[0.0, 1.0, 1000.0]).round(4)
        array([[0.5   , 0.5   ],
               [1.4482, 0.1839],
               [2.    , 0.    ]])
    """
    s, t = _checked_modes(singular_values), checked_times(times)[:, None]
    return checked_strength(a0, deep=False) * np.exp(-t) - s * np.expm1(-t)


def deep_weights(sigma: ArrayLike, a0: float, times: ArrayLike) -> Array:
    """Every weight W_jk(t) from sensor k to task j in a linear network with one hidden layer.

        Sigma_yx = U diag(s) V^T,    W(t) = U diag(a(t)) V^T,

    with a(t) of :func:`deep_strengths`. The modes mix sensors, so a weight may depend on sensors
    that its own task does not need.

    Source: Saxe et al. (2013, 2019); Kleinman et al. (CVPR 2023), section 2 and Fig. 2 (right).

    Args:
        sigma: Sigma_yx, the correlations of outputs with white inputs, [outputs, inputs].
        a0: the strength of every mode at time 0.
        times: t in units of tau, [T].

    Returns:
        W, float64 [T, outputs, inputs].

    Raises:
        UserError: sigma is no finite matrix, a time is negative, or a0 is not positive.

    Example:
        >>> deep_weights([[0.0, 2.0], [1.0, 0.0]], a0=1e-4, times=[3.0]).round(2)
        array([[[0.  , 1.78],
                [0.04, 0.  ]]])
    """
    return _weights(deep_strengths, sigma, a0, times)


def shallow_weights(sigma: ArrayLike, a0: float, times: ArrayLike) -> Array:
    """Every weight W_jk(t) from sensor k to task j in a linear network without a hidden layer.

        W(t) = U diag(b(t)) V^T = Sigma_yx (1 - e^(-t/tau)) + W(0) e^(-t/tau),

    with b(t) of :func:`shallow_strengths`: but for the decaying start, no weight depends on any
    other sensor or task. Arguments, result and errors are those of :func:`deep_weights`, but a0 may
    be 0.

    Source: Saxe et al. (2013, 2019); Kleinman et al. (CVPR 2023), section 2 and Fig. 2 (left).

    Example:
        >>> shallow_weights([[0.0, 2.0], [1.0, 0.0]], a0=0.0, times=[3.0]).round(2)
        array([[[0.  , 1.9 ],
                [0.95, 0.  ]]])
    """
    return _weights(shallow_strengths, sigma, a0, times)


def mode_strengths(sigma: ArrayLike, weights: ArrayLike) -> Array:
    """The strength of each singular mode of Sigma_yx in given weights: the diagonal of U^T W V.

    Args:
        sigma: Sigma_yx, [outputs, inputs].
        weights: W at one time or at many, [..., outputs, inputs].

    Returns:
        float64 [..., modes], the strongest mode of Sigma_yx first.

    Raises:
        UserError: sigma is no finite matrix, or the weights have another shape.

    Example:
        >>> sigma = [[0.0, 2.0], [1.0, 0.0]]
        >>> mode_strengths(sigma, deep_weights(sigma, a0=1e-4, times=[3.0])).round(2)
        array([[1.78, 0.04]])
    """
    u, _, vt = singular_modes(sigma)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape[-2:] != (len(u), vt.shape[1]):
        raise UserError(
            f"weights have shape {list(w.shape)}; they must end in {[len(u), vt.shape[1]]}."
        )
    strengths: Array = np.einsum("om,...oi,mi->...m", u, w, vt)
    return strengths


def _checked_modes(singular_values: ArrayLike) -> Array:
    s = np.asarray(singular_values, dtype=np.float64)
    if s.ndim != 1 or not (np.isfinite(s).all() and (s >= 0).all()):
        raise UserError(f"singular_values are {s.tolist()}; give a list of finite ones from 0.")
    return s


def _weights(
    strengths: Callable[..., Array], sigma: ArrayLike, a0: float, times: ArrayLike
) -> Array:
    u, s, vt = singular_modes(sigma)
    weights: Array = np.einsum("om,tm,mi->toi", u, strengths(s, a0, times), vt)
    return weights
