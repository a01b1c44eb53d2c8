"""The same case of linear learning in closed form, as an ODE and by gradient descent."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.checks import Array, checked_matrix, checked_times
from critical_periods.linear.theory.closed_form import deep_weights, shallow_weights
from critical_periods.linear.theory.correlations import Dropped, stretches
from critical_periods.linear.theory.flow import gradient_flow
from critical_periods.linear.theory.layers import product
from critical_periods.linear.theory.simulation import DeepLinear, gradient_descent
from critical_periods.linear.theory.starts import balanced_starts


class Comparison(NamedTuple):
    """The weights W(t) from sensors to tasks of one case, computed in three ways.

    Args:
        times: in units of tau, [T].
        closed: by the closed form, [T, outputs, inputs]; NaN after the first switch.
        flow: by the ODE, [T, outputs, inputs].
        simulation: by gradient descent, [T, outputs, inputs].
    """

    times: Array
    closed: Array
    flow: Array
    simulation: Array

    @property
    def gap(self) -> float:
        """The largest difference of any two of them, over all entries and times."""
        pairs = combinations((self.closed, self.flow, self.simulation), 2)
        return float(max(np.nanmax(abs(one - other)) for one, other in pairs))


def compare(
    sigma: ArrayLike,
    depth: int,
    a0: float,
    times: ArrayLike,
    dropped: Sequence[Dropped] = (),
    step: float = 5e-5,
) -> Comparison:
    """Closed form, ODE and simulation from one balanced start.

    The start is aligned with the correlations at time 0, so the closed form holds until the first
    sensor is switched on or off, and to the end if none is.

    The three differ by the error of the simulation, which is proportional to its step (Euler's
    method is of first order): for :func:`five_tasks` from a0 = 1e-4 with two layers at most 15
    times the step, 7.4e-4 at the default, which takes two seconds there.

    Source: Kleinman, Achille & Soatto (CVPR 2023), section 2, Fig. 2 and appendix A.3, with
    a0 = 1e-4 and times from 0 to 10.

    Args:
        sigma: Sigma_yx of all sensors, [outputs, inputs].
        depth: 1 for a shallow network, 2 for one with a hidden layer.
        a0: the strength of every mode at time 0.
        times: t in units of tau, increasing, [T].
        dropped: which sensors are dropped when.
        step: the learning rate of the simulation; stronger modes than those of
            :func:`five_tasks` take smaller ones.

    Raises:
        UserError: the depth is not 1 or 2, or see :func:`gradient_descent` and
            :func:`balanced_starts`.

    Example:
        >>> case = compare([[3.0, 1.0]], 2, 0.01, [0.0, 1.0, 2.0], [Dropped(0, removal=1.0)])
        >>> case.closed[:, 0].round(3)
        array([[0.   , 0.01 ],
               [0.   , 0.069],
               [  nan,   nan]])
        >>> case.gap < 0.01
        True
    """
    if depth not in (1, 2):
        raise UserError(f"depth is {depth}; closed forms are known here for 1 and 2.")
    instants = checked_times(times, increasing=True)
    _, switch, held = stretches(sigma, dropped, np.inf)[0]
    starts = balanced_starts(held, a0, depth)
    closed = (shallow_weights, deep_weights)[depth - 1](held, a0, instants)
    closed[instants > switch] = np.nan
    full = checked_matrix("sigma", sigma)
    return Comparison(
        times=instants,
        closed=closed,
        flow=product(gradient_flow(full, starts, instants, dropped)),
        simulation=product(gradient_descent(DeepLinear(starts), full, instants, dropped, step)),
    )
