"""Independent variables of other distributions, as functions of standard normal ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr, ndtr, ndtri, ndtri_exp

from critical_periods.core.errors import UserError

Array = NDArray[np.float64]


class Marginal(Protocol):
    """A distribution by x(u) = F⁻¹(Φ(u)) and its inverse."""

    def from_normal(self, u: Array) -> Array:
        """x of standard normal u, any shape."""

    def to_normal(self, x: Array) -> Array:
        """U of x, any shape; not finite where x lies outside."""


@dataclass(frozen=True)
class Normal:
    """A normal variable, x = mean + sd u.

    Example:
        >>> Normal(1.0, 0.2).from_normal(np.array([0.0, 2.0]))
        array([1. , 1.4])
    """

    mean: float = 0.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("Normal", sd=self.sd)

    def from_normal(self, u: Array) -> Array:
        """x of standard normal u, any shape."""
        return self.mean + self.sd * u

    def to_normal(self, x: Array) -> Array:
        """U of x, any shape."""
        return (x - self.mean) / self.sd


@dataclass(frozen=True)
class LogNormal:
    """A lognormal variable by its own mean and standard deviation.

    x = exp(λ + ζ u), ζ² = log(1 + sd² / mean²), λ = log(mean) - ζ² / 2.

    Example:
        >>> x = LogNormal(1.0, 0.2).from_normal(np.random.default_rng(0).standard_normal(100_000))
        >>> print(f"{x.mean():.2f} {x.std():.2f}")
        1.00 0.20
    """

    mean: float
    sd: float

    def __post_init__(self) -> None:
        _check_positive("LogNormal", mean=self.mean, sd=self.sd)

    @property
    def _parameters(self) -> tuple[float, float]:
        squared = np.log1p((self.sd / self.mean) ** 2)
        return float(np.log(self.mean) - squared / 2), float(np.sqrt(squared))

    def from_normal(self, u: Array) -> Array:
        """x of standard normal u, any shape."""
        location, scale = self._parameters
        return np.exp(location + scale * u)

    def to_normal(self, x: Array) -> Array:
        """U of x, any shape; not finite where x <= 0."""
        location, scale = self._parameters
        with np.errstate(divide="ignore", invalid="ignore"):
            return (np.log(x) - location) / scale


@dataclass(frozen=True)
class Exponential:
    """An exponential variable of a mean, x = -mean log Φ(-u).

    Example:
        >>> Exponential(2.0).from_normal(np.array([0.0, 40.0]))
        array([1.38629436e+00, 1.60921688e+03])
    """

    mean: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("Exponential", mean=self.mean)

    def from_normal(self, u: Array) -> Array:
        """x of standard normal u, any shape."""
        return -self.mean * log_ndtr(-u)

    def to_normal(self, x: Array) -> Array:
        """U of x, any shape; not finite where x <= 0."""
        with np.errstate(invalid="ignore"):
            return -ndtri_exp(np.where(x > 0, -x / self.mean, np.nan))


@dataclass(frozen=True)
class Uniform:
    """A uniform variable, x = low + (high - low) Φ(u).

    Example:
        >>> Uniform(0.0, 40.0).from_normal(np.array([-9.0, 0.0]))
        array([4.51435362e-18, 2.00000000e+01])
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite([self.low, self.high]).all() and self.low < self.high):
            raise UserError(
                f"Uniform runs from {self.low} to {self.high}; high must lie above low."
            )

    def from_normal(self, u: Array) -> Array:
        """x of standard normal u, any shape."""
        return self.low + (self.high - self.low) * ndtr(u)

    def to_normal(self, x: Array) -> Array:
        """U of x, any shape; not finite where x lies at an end or beyond."""
        with np.errstate(invalid="ignore"):
            return ndtri((x - self.low) / (self.high - self.low))


class Independent:
    """Independent variables, each of a distribution of its own.

    A limit state of them becomes one of standard normal variables, and points that were evaluated
    elsewhere can be carried back.

    Args:
        marginals: a distribution a variable: :class:`Normal`, :class:`LogNormal`,
            :class:`Exponential`, :class:`Uniform`.

    Example:
        >>> space = Independent([Uniform(0.0, 40.0), LogNormal(1.0, 0.2)])
        >>> u = np.array([[0.0, 0.0], [1.0, -1.0]])
        >>> space.from_normal(u).round(2)
        array([[20.  ,  0.98],
               [33.65,  0.8 ]])
        >>> np.allclose(space.to_normal(space.from_normal(u)), u)
        True
    """

    def __init__(self, marginals: Sequence[Marginal]) -> None:
        self.marginals = list(marginals)
        if not self.marginals:
            raise UserError("there are no marginals; give one for each variable.")

    @property
    def dimension(self) -> int:
        """The number of variables."""
        return len(self.marginals)

    def from_normal(self, u: ArrayLike) -> Array:
        """The variables x of standard normal ones, [n, d] each."""
        points = self._checked("u", u)
        columns = [one.from_normal(points[:, i]) for i, one in enumerate(self.marginals)]
        return np.stack(columns, axis=1)

    def to_normal(self, x: ArrayLike) -> Array:
        """The standard normal variables u of x, [n, d] each.

        Raises:
            UserError: x lies outside the range of its variable, or on the edge of it.
        """
        points = self._checked("x", x)
        for i, one in enumerate(self.marginals):
            u = one.to_normal(points[:, i])
            if not np.isfinite(u).all():
                at = points[~np.isfinite(u), i][0]
                raise UserError(f"variable {i} of x is {at}, not within {one}; choose it inside.")
            points[:, i] = u
        return points

    def _checked(self, name: str, value: ArrayLike) -> Array:
        points = np.array(value, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != self.dimension:
            raise UserError(
                f"{name} has shape {list(points.shape)}; give a row a point and a column for each "
                f"of the {self.dimension} variables."
            )
        return points


def _check_positive(name: str, **arguments: float) -> None:
    for argument, value in arguments.items():
        if not 0 < value < np.inf:
            raise UserError(f"{argument} of {name} is {value}; it must be positive.")
