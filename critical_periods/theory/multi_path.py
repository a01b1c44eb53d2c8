"""Paths that compete for one task: the dynamics of their mode strengths, with freezes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

from critical_periods.errors import UserError

_PRECISION = {"method": "DOP853", "rtol": 1e-9, "atol": 1e-12}


class Freeze(NamedTuple):
    """A path that does not learn from time ``onset`` to ``removal``; its output still counts."""

    path: int
    onset: float
    removal: float


def path_strengths(
    times: ArrayLike,
    targets: ArrayLike,
    first: ArrayLike,
    depth: int,
    freezes: Sequence[Freeze] = (),
    excess: float = 0.0,
) -> NDArray[np.float64]:
    """The strengths K_p(t) of every mode in every path of a deep linear network of several paths.

    The network is W = Σ_p W_p, each path a product of D layers, trained by gradient flow on half
    the summed squares. With layers aligned to the singular vectors of the task, a mode of singular
    value s has a strength a in one layer of path p and b in each of the D - 1 others, K_p = a
    b^(D-1), and what training conserves is the excess c = b² - a². All modes go their own way, and
    the paths of a mode meet in what is left to learn:

        da_p/dt = (a_p² + c)^((D-1)/2) (s - Σ_q K_q),   K_p = a_p (a_p² + c)^((D-1)/2).

    Balanced layers have c = 0, for which dK_p/dt = D K_p^(2-2/D) (s - Σ_q K_q). A frozen path has
    da_p/dt = 0. (Kleinman, Achille & Soatto, ICLR 2024, arXiv 2308.12221, section 3; the same time
    as that of gradient descent: steps times learning rate.)

    Args:
        times: at which the strengths are wanted, from 0 on, in order, [T].
        targets: the singular value s of each mode, [M].
        first: a_p at time 0, [P, M]; :func:`layer_strength` gives it for balanced layers.
        depth: D, weight layers in each path.
        freezes: which paths do not learn when.
        excess: c, at least 0.

    Returns:
        K, [T, P, M].

    Raises:
        UserError: the times are not in order, or a freeze names a path that there is not.

    Example:
        Path 1 is frozen at first; with three layers it is left behind for good:

        >>> start = layer_strength([[0.01], [0.01]], depth=3)
        >>> paths = path_strengths([0, 50], [4.0], start, 3, [Freeze(1, 0.0, 1.0)])
        >>> paths[-1, :, 0].round(2)
        array([3.99, 0.01])
        >>> path_strengths([0, 50], [4.0], start, 3)[-1, :, 0].round(2)
        array([2., 2.])
    """
    moments = np.atleast_1d(np.asarray(times, dtype=float))
    s, state = np.asarray(targets, dtype=float), np.array(first, dtype=float)
    if moments[0] < 0 or np.any(np.diff(moments) < 0):
        raise UserError("times must begin at 0 or later and be in order.")
    unknown = [freeze.path for freeze in freezes if not 0 <= freeze.path < len(state)]
    if unknown:
        raise UserError(
            f"a freeze names path {unknown[0]}, but there are {len(state)} paths, counted from 0."
        )
    found = np.empty((len(moments), *state.shape))
    # Freezes begin and end in jumps of the derivative, which no solver should step across.
    edges = {edge for freeze in freezes for edge in (freeze.onset, freeze.removal)}
    stops = [0.0, *sorted(edge for edge in edges if 0 < edge < moments[-1]), moments[-1]]
    found[moments == 0] = strength(state, depth, excess)
    for start, stop in pairwise(stops):
        frozen = [one.path for one in freezes if one.onset <= start < one.removal]
        inside = (start < moments) & (moments <= stop)
        wanted = np.append(moments[inside], stop)
        layers = _solve(state, s, depth, excess, frozen, start, wanted)
        found[inside] = strength(layers[:-1], depth, excess)
        state = layers[-1]
    return found


def _solve(
    state: NDArray[np.float64],
    targets: NDArray[np.float64],
    depth: int,
    excess: float,
    frozen: Sequence[int],
    start: float,
    times: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The layers' a_p at some times after the start, [T, P, M]; the last is the end."""

    def slope(_: float, flat: NDArray[np.float64]) -> NDArray[np.float64]:
        a = flat.reshape(state.shape)
        others = (a**2 + excess) ** ((depth - 1) / 2)
        slopes = others * (targets - (a * others).sum(axis=0))
        slopes[list(frozen)] = 0
        return slopes.ravel()

    if times[-1] == start:
        return np.broadcast_to(state, (len(times), *state.shape))
    # The last time may be asked for twice, which the solver does not allow.
    once, places = np.unique(times, return_inverse=True)
    # A trial step that is far too long overflows, and is taken back.
    with np.errstate(over="ignore", invalid="ignore"):
        solution = solve_ivp(slope, (start, times[-1]), state.ravel(), t_eval=once, **_PRECISION)
    layers: NDArray[np.float64] = solution.y.T.reshape(-1, *state.shape)[places]
    return layers


def strength(first: ArrayLike, depth: int, excess: float = 0.0) -> NDArray[np.float64]:
    """The strength of a mode in a whole path: K = a (a² + c)^((D-1)/2).

    Args:
        first: a, the strength of one of its layers.
        depth: D.
        excess: c, by which the squares of the other layers' strengths exceed a².

    Example:
        >>> strength([2.0, -2.0], depth=3)
        array([ 8., -8.])
    """
    a = np.asarray(first, dtype=float)
    path: NDArray[np.float64] = a * (a**2 + excess) ** ((depth - 1) / 2)
    return path


def layer_strength(path: ArrayLike, depth: int) -> NDArray[np.float64]:
    """The strength of a mode in each of D balanced layers: a = sign(K) |K|^(1/D).

    Args:
        path: K, that of the whole path.
        depth: D.

    Example:
        >>> layer_strength([8.0, -8.0], depth=3)
        array([ 2., -2.])
    """
    k = np.asarray(path, dtype=float)
    layer: NDArray[np.float64] = np.sign(k) * np.abs(k) ** (1 / depth)
    return layer
