"""The correlations of sensors with tasks that a linear network learns, with sensors dropped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np
from numpy.typing import ArrayLike

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.checks import Array, checked_matrix


def five_tasks() -> Array:
    """Sigma_yx of 5 tasks (rows) with 8 sensors (columns), float64, as in Fig. 2 of the paper.

    Tasks 1 and 5 share sensor 3, tasks 1 and 2 sensor 1, tasks 3 and 4 sensor 2; every other sensor
    serves one task. The paper drops the third sensor and shows the fifth task.

    Source: Kleinman, Achille & Soatto (CVPR 2023), appendix A.3.

    Example:
        >>> five_tasks()[4]
        array([0., 0., 3., 0., 0., 0., 0., 1.])
    """
    return np.array(
        [
            [1, 0, 3, 1, 0, 0, 0, 0],
            [1, 0, 0, 0, 1, 0, 0, 0],
            [0, 1, 0, 0, 0, 1, 0, 0],
            [0, 1, 0, 0, 0, 0, 1, 0],
            [0, 0, 3, 0, 0, 0, 0, 1],
        ],
        dtype=np.float64,
    )


@dataclass(frozen=True)
class Dropped:
    """A sensor that is dropped from ``onset`` until ``removal`` of the deficit.

    To drop a sensor is to make its column of Sigma_yx zero while the inputs stay white
    (Sigma_x = I): its input still has variance 1 but is uncorrelated with every target, so its
    weights decay towards 0. (With an input of 0 they would stay as they are instead.)

    Source: Kleinman, Achille & Soatto (CVPR 2023), section 2 and appendix A.3, which drop a sensor
    to the end; onset and removal are additions of this package.

    Args:
        sensor: its column of Sigma_yx, from 0.
        onset: the time from which it is dropped.
        removal: the time from which it is back; by default none.

    Raises:
        UserError: the onset is negative, or the removal does not come after it.

    Example:
        >>> Dropped(sensor=2, removal=6.0)
        Dropped(sensor=2, onset=0.0, removal=6.0)
    """

    sensor: int
    onset: float = 0.0
    removal: float = inf

    def __post_init__(self) -> None:
        if not 0 <= self.onset < inf:
            raise UserError(f"onset is {self.onset}; give a time from 0.")
        if not self.removal > self.onset:
            raise UserError(f"removal {self.removal} is not after onset {self.onset}; move it.")


def drop_sensors(sigma: ArrayLike, sensors: Iterable[int]) -> Array:
    """A copy of the correlations with some sensors dropped: their columns are zero.

    Args:
        sigma: Sigma_yx, [outputs, inputs].
        sensors: the columns to drop, from 0.

    Raises:
        UserError: sigma is no matrix, or there is no such column.

    Example:
        >>> drop_sensors([[1, 3], [2, 4]], [1])
        array([[1., 0.],
               [2., 0.]])
    """
    left = checked_matrix("sigma", sigma).copy()
    for sensor in sensors:
        if not 0 <= sensor < left.shape[1]:
            raise UserError(f"sensor {sensor} does not exist; choose 0 to {left.shape[1] - 1}.")
        left[:, sensor] = 0
    return left


def stretches(
    sigma: ArrayLike, dropped: Sequence[Dropped], until: float
) -> list[tuple[float, float, Array]]:
    """Begin, end and Sigma_yx of each stretch between switches, from time 0 to ``until``."""
    # A sensor that does not exist is named now, not when its stretch comes.
    drop_sensors(sigma, [one.sensor for one in dropped])
    switches = {time for one in dropped for time in (one.onset, one.removal)}
    marks = sorted({0.0, until, *(time for time in switches if 0 < time < until)})

    def held(time: float) -> Array:
        return drop_sensors(sigma, [s.sensor for s in dropped if s.onset <= time < s.removal])

    return [(begin, end, held(begin)) for begin, end in pairwise(marks)]
