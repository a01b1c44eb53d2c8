"""The dynamics of mode strengths in several paths that learn one task, some frozen for a while."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from math import isnan
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.checks import (
    Array,
    checked_finite,
    checked_matrix,
    checked_times,
)

_PRECISION = {"method": "DOP853", "rtol": 1e-9, "atol": 1e-12}


class Freeze(NamedTuple):
    """A path that does not learn from time ``onset`` to ``removal``; its output still counts.

    Args:
        path: which, counted from 0.
        onset: when it stops learning.
        removal: when it learns again; ``inf`` for a freeze without end, ``onset`` for none.
    """

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
) -> Array:
    """The strengths K_p(t) [T, P, M] of each mode in each path of a deep linear network of P paths.

    The network is W = Σ_p W_p, each path a product of D layers, trained by gradient flow on half
    the summed squares; time is steps of gradient descent times learning rate. With layers aligned
    to the singular vectors of the task, a mode of singular value s has a strength a in one layer of
    path p and b in each of the D - 1 others, K_p = a b^(D-1), and training conserves the excess
    c = b² - a². Modes are independent, and the paths of a mode share the error that is left:

        da_p/dt = (a_p² + c)^((D-1)/2) (s - Σ_q K_q),   K_p = a_p (a_p² + c)^((D-1)/2).

    Balanced layers have c = 0, for which dK_p/dt = D K_p^(2-2/D) (s - Σ_q K_q). A frozen path has
    da_p/dt = 0.

    Source: Kleinman, Achille & Soatto (ICLR 2024, arXiv 2308.12221), section 3.

    Args:
        times: of the strengths to return, from 0 on, in order, [T].
        targets: the singular value s of each mode, [M].
        first: a_p at time 0, [P, M]; :func:`layer_strength` gives it for balanced layers.
        depth: D, weight layers in each path.
        freezes: which paths do not learn when.
        excess: c, at least 0.

    Raises:
        UserError: a number is not finite, the times are none or not in order from 0, targets and
            first do not fit each other, the depth is no whole number from 1, the excess is
            negative, a freeze ends before it begins or names a path that does not exist, or the
            strengths change too fast to be integrated.

    Example:
        Path 1 is frozen at first; with three layers path 0 learns nearly all of the mode:

        >>> start = layer_strength([[0.01], [0.01]], depth=3)
        >>> paths = path_strengths([0, 50], [4.0], start, 3, [Freeze(1, 0.0, 1.0)])
        >>> paths[-1, :, 0].round(2)
        array([3.99, 0.01])
        >>> path_strengths([0, 50], [4.0], start, 3)[-1, :, 0].round(2)
        array([2., 2.])
    """
    moments = checked_times(np.atleast_1d(np.asarray(times, dtype=float)))
    if np.any(np.diff(moments) < 0):
        raise UserError("times are not in order; sort them.")
    s, state = checked_finite("targets", targets), checked_matrix("first", first)
    if s.shape != state.shape[1:]:
        raise UserError(
            f"targets have shape {list(s.shape)} and first has {list(state.shape)}; give a target "
            "for each mode, [M], and a row for each path, [P, M]."
        )
    for freeze in freezes:
        _check_freeze(freeze, len(state), moments[-1])

    def slope(_: float, flat: Array, frozen: list[int]) -> Array:
        a = flat.reshape(state.shape)
        others = (a**2 + excess) ** ((depth - 1) / 2)
        slopes = others * (s - (a * others).sum(axis=0))
        slopes[frozen] = 0
        return slopes.ravel()

    found = np.empty((len(moments), *state.shape))
    # The derivative jumps where a freeze begins or ends, so each part is integrated by itself.
    edges = {edge for freeze in freezes for edge in (freeze.onset, freeze.removal)}
    stops = [0.0, *sorted(edge for edge in edges if 0 < edge < moments[-1]), moments[-1]]
    found[moments == 0] = strength(state, depth, excess)
    for start, stop in pairwise(stops):
        frozen = [int(one.path) for one in freezes if one.onset <= start < one.removal]
        inside = (start < moments) & (moments <= stop)
        wanted = np.append(moments[inside], stop)
        layers = _solve(partial(slope, frozen=frozen), state, start, wanted)
        found[inside] = strength(layers[:-1], depth, excess)
        state = layers[-1]
    return found


def _solve(slope: Callable[..., Array], state: Array, start: float, times: Array) -> Array:
    """Integrates a_p [P, M] from the start to each time; [T, P, M]."""
    if times[-1] == start:
        return np.broadcast_to(state, (len(times), *state.shape))
    # The last time may come twice, which the solver does not allow.
    once, places = np.unique(times, return_inverse=True)
    # A trial step that is far too long overflows, and the solver rejects it.
    with np.errstate(over="ignore", invalid="ignore"):
        # From an infinite slope the solver would search for a first step without end.
        can_begin = np.isfinite(slope(start, state.ravel())).all()
        solution = can_begin and solve_ivp(
            slope, (start, times[-1]), state.ravel(), t_eval=once, **_PRECISION
        )
    if not (solution and solution.success):
        raise UserError(
            f"the strengths change too fast to be followed on from time {start:g}; give smaller "
            "targets or a smaller first."
        )
    layers: Array = solution.y.T.reshape(-1, *state.shape)[places]
    return layers


def strength(first: ArrayLike, depth: int, excess: float = 0.0) -> Array:
    """The strength of a mode in a path of D layers: K = a (a² + c)^((D-1)/2).

    Args:
        first: a, the strength of one of its layers.
        depth: D.
        excess: c = b² - a², with b the strength of every other layer.

    Raises:
        UserError: a strength is not finite, the depth no whole number from 1, or the excess
            negative.

    Example:
        >>> strength([2.0, -2.0], depth=3)
        array([ 8., -8.])
    """
    _check_layers(depth, excess)
    a = checked_finite("first", first)
    with np.errstate(over="ignore", invalid="ignore"):
        path: Array = a * (a**2 + excess) ** ((depth - 1) / 2)
    return path


def layer_strength(path: ArrayLike, depth: int) -> Array:
    """The strength of a mode in each of D balanced layers: a = sign(K) |K|^(1/D).

    Args:
        path: K, the strength of the path.
        depth: D.

    Raises:
        UserError: a strength is not finite, or the depth no whole number from 1.

    Example:
        >>> layer_strength([8.0, -8.0], depth=3)
        array([ 2., -2.])
    """
    _check_layers(depth)
    k = checked_finite("path", path)
    layer: Array = np.sign(k) * np.abs(k) ** (1 / depth)
    return layer


def _check_layers(depth: int, excess: float = 0.0) -> None:
    if not isinstance(depth, int | np.integer) or depth < 1:
        raise UserError(f"depth is {depth}; give the number of weight layers in a path, from 1.")
    if not 0 <= excess < np.inf:
        raise UserError(f"excess is {excess}; give a finite number from 0.")


def _check_freeze(freeze: Freeze, paths: int, end: float) -> None:
    path, onset, removal = freeze
    if path not in range(paths):
        raise UserError(f"a freeze names path {path}, but there are {paths} paths, counted from 0.")
    if isnan(onset) or isnan(removal):
        raise UserError(f"{freeze} holds nan; give times, inf for a freeze that never ends.")
    # One that begins only after the last time may be cut off there (ModeMonitor's are).
    if removal < min(onset, end):
        raise UserError(f"{freeze} ends before it begins; let removal be at least {onset}.")
