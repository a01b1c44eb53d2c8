"""Checks of the theory's arguments: float64, finite, and of the shapes that the formulas name.

Each raises a UserError that names the argument and says what to give instead.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from critical_periods.core.errors import UserError

Array = NDArray[np.float64]


def checked_finite(name: str, value: ArrayLike) -> Array:
    """Finite numbers of the same shape."""
    numbers = np.asarray(value, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise UserError(f"{name} holds nan or inf; give finite numbers.")
    return numbers


def checked_matrix(name: str, value: ArrayLike) -> Array:
    """A finite matrix [rows, columns] with at least one entry."""
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0:
        raise UserError(
            f"{name} has shape {list(matrix.shape)}; give a matrix with at least one entry."
        )
    return checked_finite(name, matrix)


def checked_times(value: ArrayLike, increasing: bool = False) -> Array:
    """At least one time [T] in units of tau, each finite and from 0 on, rising where they must."""
    times = np.asarray(value, dtype=np.float64)
    if times.ndim != 1 or times.size == 0:
        raise UserError(f"times have shape {list(times.shape)}; give a list of at least one time.")
    if not (np.isfinite(times).all() and (times >= 0).all()):
        raise UserError(f"times run from {times.min()} to {times.max()}; give finite ones from 0.")
    if increasing and not (np.diff(times) > 0).all():
        raise UserError("times do not increase; sort them and leave out repeated ones.")
    return times


def checked_strength(a0: float, deep: bool) -> float:
    """The strength of every mode at time 0; 0 only without a hidden layer, with which it stays."""
    if not (np.isfinite(a0) and (a0 > 0 or (a0 == 0 and not deep))):
        least = "a positive number; a deep network that starts at 0 stays there" if deep else "0 up"
        raise UserError(f"a0 is {a0}; give {least}.")
    return float(a0)


def singular_modes(sigma: ArrayLike) -> tuple[Array, Array, Array]:
    """U [outputs, modes], falling s [modes] and V^T [modes, inputs] of Sigma_yx = U diag(s) V^T."""
    u, s, vt = np.linalg.svd(checked_matrix("sigma", sigma), full_matrices=False)
    return u, s, vt
