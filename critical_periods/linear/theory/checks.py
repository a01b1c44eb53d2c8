"""Checks of the theory's arguments: float64, finite, and of the shapes that the formulas name."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from critical_periods.core.errors import UserError

Array = NDArray[np.float64]


def checked_matrix(name: str, value: ArrayLike) -> Array:
    """The value as a float64 matrix [rows, columns].

    Raises:
        UserError: it has not two dimensions, is empty or holds nan or inf; the message names it.

    Example:
        >>> checked_matrix("sigma", [[1, 2]])
        array([[1., 2.]])
    """
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise UserError(
            f"{name} has shape {list(matrix.shape)}; give a matrix with at least one entry."
        )
    return checked_finite(name, matrix)


def checked_finite(name: str, value: ArrayLike) -> Array:
    """The value as float64 numbers of the same shape.

    Raises:
        UserError: it holds nan or inf; the message names it.
    """
    numbers = np.asarray(value, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise UserError(f"{name} holds nan or inf; give finite numbers.")
    return numbers


def checked_times(value: ArrayLike, increasing: bool = False) -> Array:
    """Times as float64 [T], each finite and from 0 on, in units of tau.

    Args:
        value: the times.
        increasing: whether each must be later than the one before.

    Raises:
        UserError: there is none, one is negative or not finite, or they do not increase.

    Example:
        >>> checked_times(range(3))
        array([0., 1., 2.])
    """
    times = np.asarray(value, dtype=np.float64)
    if times.ndim != 1 or times.size == 0:
        raise UserError(f"times have shape {list(times.shape)}; give a list of at least one time.")
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise UserError(f"times run from {times.min()} to {times.max()}; give finite ones from 0.")
    if increasing and not (np.diff(times) > 0).all():
        raise UserError("times do not increase; sort them and leave out repeated ones.")
    return times


def checked_strength(a0: float, deep: bool) -> float:
    """The strength of every mode at time 0.

    Args:
        a0: the strength.
        deep: whether the network has a hidden layer, where a strength of 0 would stay 0.

    Raises:
        UserError: it is negative, not finite, or 0 in a deep network.
    """
    if not (np.isfinite(a0) and (a0 > 0 or (a0 == 0 and not deep))):
        least = "a positive number; a deep network that starts at 0 stays there" if deep else "0 up"
        raise UserError(f"a0 is {a0}; give {least}.")
    return float(a0)


def singular_modes(sigma: ArrayLike) -> tuple[Array, Array, Array]:
    """The singular value decomposition U diag(s) V^T of Sigma_yx, s falling.

    Returns:
        U [outputs, modes], s [modes] and V^T [modes, inputs].

    Raises:
        UserError: sigma is no finite matrix.
    """
    u, s, vt = np.linalg.svd(checked_matrix("sigma", sigma), full_matrices=False)
    return u, s, vt
