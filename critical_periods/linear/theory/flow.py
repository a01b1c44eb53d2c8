"""Gradient flow of all layers as an ordinary differential equation, from any start."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import solve_ivp

from critical_periods.linear.theory.checks import Array, checked_matrix, checked_times
from critical_periods.linear.theory.correlations import Dropped, stretches
from critical_periods.linear.theory.layers import (
    Matrix,
    checked_layers,
    layer_gradients,
    partial_products,
)


def descent(layers: Sequence[Matrix], sigma: Matrix) -> list[Matrix]:
    """Minus the gradient of the squared error in every layer, of the shape of the layer.

    With white inputs the mean of ½|y - Wx|² is ½|Sigma_yx - WD … W1|² and a constant, so

        dWi/dt = (WD … W(i+1))^T (Sigma_yx - WD … W1) (W(i-1) … W1)^T,

    for two layers dW1/dt = W2^T (Sigma_yx - W2 W1) and dW2/dt = (Sigma_yx - W2 W1) W1^T, for one
    dW/dt = Sigma_yx - W; t in units of tau.

    Source: Saxe et al. (2013), eq. 2 and 3; Kleinman et al. (CVPR 2023), section 2.

    Args:
        layers: the weights from the first layer to the last.
        sigma: Sigma_yx, [outputs, inputs].

    Example:
        >>> w1, w2 = np.array([[1.0, 2.0]]), np.array([[3.0]])
        >>> descent([w1, w2], sigma=np.array([[4.0, 6.0]]))
        [array([[3., 0.]]), array([[1.]])]
    """
    products = partial_products(layers)
    return layer_gradients(layers, products[:-1], sigma - products[-1])


def gradient_flow(
    sigma: ArrayLike, starts: Sequence[Array], times: ArrayLike, dropped: Sequence[Dropped] = ()
) -> list[Array]:
    """The weights of every layer at every time, from any start, with sensors dropped and restored.

    Integrates :func:`descent` for the full matrices with an eighth-order Runge-Kutta method
    (DOP853, relative tolerance 1e-10), anew from each switch of a sensor (:class:`Dropped`). Where
    a closed form holds (balanced aligned starts, no switch before) the two agree.

    Args:
        sigma: Sigma_yx of all sensors, [outputs, inputs].
        starts: the weights at time 0 from the first layer to the last, any number of layers.
        times: t in units of tau, increasing, [T].
        dropped: which sensors are dropped when.

    Returns:
        The weights of each layer, [T, width out, width in]; :func:`product` multiplies them.

    Raises:
        UserError: sigma or a start is no finite matrix, the starts do not fit each other and sigma,
            times are negative or do not increase, or there is no such sensor.

    Example:
        A sensor that was dropped until t = 6 catches up:

        >>> from critical_periods.linear import balanced_starts, drop_sensors, product
        >>> sigma = [[3.0, 1.0]]
        >>> starts = balanced_starts(drop_sensors(sigma, [0]), a0=1e-4)
        >>> course = gradient_flow(sigma, starts, [6.0, 7.0, 20.0], [Dropped(0, removal=6.0)])
        >>> product(course)[:, 0].round(3)
        array([[0.   , 0.942],
               [2.869, 1.155],
               [3.   , 1.   ]])
    """
    full, instants = checked_matrix("sigma", sigma), checked_times(times, increasing=True)
    layers = checked_layers(starts, full)
    shapes = [layer.shape for layer in layers]
    ends = np.cumsum([layer.size for layer in layers])

    def split(flat: Array) -> list[Array]:
        parts = np.split(flat, ends[:-1], axis=-1)
        return [p.reshape(*p.shape[:-1], *s) for p, s in zip(parts, shapes, strict=True)]

    def change(_: float, flat: Array, held: Array) -> Array:
        return np.concatenate([one.ravel() for one in descent(split(flat), held)])

    state = np.concatenate([layer.ravel() for layer in layers])
    reached = [state[None]] if instants[0] == 0 else []
    for begin, end, held in stretches(full, dropped, float(instants[-1])):
        stops = np.unique([*instants[(instants > begin) & (instants < end)], end])
        solution = solve_ivp(
            change, (begin, end), state, method="DOP853", t_eval=stops, args=(held,),
            rtol=1e-10, atol=1e-12,
        )  # fmt: skip
        if not solution.success:
            raise RuntimeError(f"the integration stopped after t = {begin}: {solution.message}")
        state = solution.y[:, -1]
        reached.append(solution.y.T[np.isin(stops, instants)])
    return split(np.concatenate(reached))
