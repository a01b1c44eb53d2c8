"""Gaussian process regression on what a network makes of the inputs, trained together."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.reliability.architecture import GRID, Architecture, Choice

if TYPE_CHECKING:
    from critical_periods.reliability.exact_gp import ExactGP

Array = NDArray[np.float64]


class DeepKernelGP:
    """A Gaussian process on a few coordinates that a network makes of many inputs.

        y = f(z(x)) + noise,  f ~ GP(c, s² exp(-Σ_j (z_j - z'_j)² / 2 l_j²))

    The network z, an :class:`Architecture`, is trained on squared errors first; then its weights,
    c, s, l and the variance of the noise (of seeds, say) are those that maximise the marginal
    likelihood log p(y | x), all of them together. Architecture and numbers of steps (early
    stopping) are those of the largest log likelihood of held-out points in cross-validation.
    Inputs and targets are standardised on the way in. Everything is float64, on the CPU.

    Source: Zhou & Peng, *Gaussian process regression based on deep neural network for reliability
    analysis in high dimensions* (2023); Wilson, Hu, Salakhutdinov & Xing, *Deep Kernel Learning*
    (2016). The grid, the pretraining and the powers of the inputs are ours.

    Args:
        architectures: to choose from.
        folds: of the cross-validation.
        joint: whether the network is trained on the marginal likelihood too, or stays as squared
            errors made it (a two-stage fit, to compare with).
        seed: of first weights and folds; the same seed gives the same bits.

    Raises:
        UserError: gpytorch is not installed, or an argument is out of range.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((60, 10))
        >>> y = x.sum(axis=1)
        >>> gp = DeepKernelGP([Architecture(1)]).fit(x, y)
        >>> mean, sd = gp.predict(np.ones((1, 10)))
        >>> print(f"{mean[0]:.1f}")
        10.0
    """

    def __init__(
        self,
        architectures: Sequence[Architecture] = GRID,
        folds: int = 5,
        joint: bool = True,
        seed: int = 0,
    ) -> None:
        if find_spec("gpytorch") is None:
            raise UserError(
                "DeepKernelGP needs gpytorch, which is not installed; "
                "pip install 'critical-periods[adaptive]'."
            )
        self.architectures = tuple(architectures)
        if not self.architectures:
            raise UserError("architectures is empty; give at least one, such as Architecture(1).")
        if folds < 2:
            raise UserError(f"folds is {folds}; give 2 or more.")
        self.folds, self.joint, self.seed = folds, joint, seed
        self.choices: tuple[Choice, ...] = ()
        """Every architecture with its steps and its score, the best first; of the last choice."""
        self._gp: ExactGP | None = None

    def fit(self, x: ArrayLike, y: ArrayLike, choice: Choice | None = None) -> DeepKernelGP:
        """Chooses an architecture by cross-validation, and trains it on all points.

        Args:
            x: inputs, [n, d].
            y: targets, [n].
            choice: of an earlier fit (``choices[0]``), to be kept instead of choosing anew.

        Raises:
            UserError: the shapes do not fit, a number is not finite, all targets are alike, or
                there are fewer than two points a fold.
        """
        from critical_periods.reliability.cross_validation import choose, fitted

        points, targets = self._checked(x, y)
        self._x_mean, self._x_sd = points.mean(axis=0), _spread(points.std(axis=0))
        self._y_mean, self._y_sd = targets.mean(), targets.std()
        inputs, outputs = self._inputs(points), torch.as_tensor(self._standard(targets))
        # A caller may have switched gradients off.
        with torch.inference_mode(False), torch.enable_grad():
            if choice is None:
                self.choices = choose(
                    self.architectures, inputs, outputs, self.folds, self.seed, self.joint
                )
                choice = self.choices[0]
            self._gp = fitted(choice, inputs, outputs, self.seed, self.joint)
        return self

    def predict(self, x: ArrayLike) -> tuple[Array, Array]:
        """Mean and standard deviation of f at new points, without the noise, [n] each."""
        from critical_periods.reliability.exact_gp import predict

        mean, sd = predict(self._fitted(), self._inputs(x))
        return self._y_mean + self._y_sd * mean.numpy(), self._y_sd * sd.numpy()

    def mean(self, x: ArrayLike) -> Array:
        """The mean of f at new points, [n]; quicker than :meth:`predict`."""
        from critical_periods.reliability.exact_gp import predict

        mean, _ = predict(self._fitted(), self._inputs(x), with_sd=False)
        return self._y_mean + self._y_sd * mean.numpy()

    def covariance(self, x: ArrayLike) -> Array:
        """The covariance of f between new points, [n, n]."""
        from critical_periods.reliability.exact_gp import covariance

        return self._y_sd**2 * covariance(self._fitted(), self._inputs(x)).numpy()

    def log_likelihood(self, x: ArrayLike, y: ArrayLike) -> float:
        """The mean of log p(y | x) over new points, noise included."""
        from critical_periods.reliability.exact_gp import log_likelihood

        targets = torch.as_tensor(self._standard(np.asarray(y, dtype=np.float64)))
        found = log_likelihood(self._fitted(), self._inputs(x), targets)
        return float(found.mean() - np.log(self._y_sd))

    @property
    def noise(self) -> float:
        """The standard deviation of the noise, in units of y."""
        return float(self._y_sd * self._fitted().likelihood.noise.detach().sqrt())

    def _fitted(self) -> ExactGP:
        if self._gp is None:
            raise UserError("this DeepKernelGP has seen no points yet; call fit(x, y) first.")
        return self._gp

    def _inputs(self, x: ArrayLike) -> Tensor:
        points = np.asarray(x, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != len(self._x_mean):
            raise UserError(
                f"x has shape {list(points.shape)}; give points [n, {len(self._x_mean)}], as in "
                "the fit."
            )
        return torch.as_tensor((points - self._x_mean) / self._x_sd)

    def _standard(self, y: Array) -> Array:
        return (y - self._y_mean) / self._y_sd

    def _checked(self, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        points, targets = (np.asarray(one, dtype=np.float64) for one in (x, y))
        if points.ndim != 2 or targets.shape != points.shape[:1]:
            raise UserError(
                f"x has shape {list(points.shape)}, y {list(targets.shape)}; give [n, d] and [n]."
            )
        if len(points) < 2 * self.folds:
            raise UserError(
                f"{len(points)} points are too few for {self.folds} folds; give at least "
                f"{2 * self.folds}."
            )
        if not (np.isfinite(points).all() and np.isfinite(targets).all()):
            raise UserError("x or y holds nan or inf; leave those points out.")
        if not targets.std():
            raise UserError(f"every y is {targets[0]:g}; give points at which it varies.")
        return points, targets


def _spread(sd: Array) -> Array:
    """A column without any spread stays as it is."""
    return np.where(sd > 0, sd, 1.0)
