"""Units whose weights follow a Beta distribution, and the distribution of their RSV (Fig. 3)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta as beta_distribution

from critical_periods.core.errors import UserError
from critical_periods.linear.theory.checks import Array
from critical_periods.linear.theory.source_variances import checked_weights


@dataclass(frozen=True)
class BetaWeights:
    """Units z = w x_a + (1-w) x_b with w ~ Beta(alpha, beta), the second half of them reversed.

    Reversed units are z = w x_b + (1-w) x_a. With alpha = beta the units mix both views; otherwise
    there are two populations, each with more weight on one view.

    Source: Kleinman, Achille & Soatto (CVPR 2023), appendix A.1.

    Args:
        alpha: first parameter of the Beta distribution.
        beta: its second parameter.
        reversed_half: whether half of the units are reversed, or none.

    Raises:
        UserError: alpha or beta is not positive.

    Example:
        >>> weights = BetaWeights(5, 20).sample(4, np.random.default_rng(0))
        >>> weights.round(2)
        array([[0.18, 0.12, 0.84, 0.92],
               [0.82, 0.88, 0.16, 0.08]])
    """

    alpha: float
    beta: float
    reversed_half: bool = True

    def __post_init__(self) -> None:
        if not (self.alpha > 0 and self.beta > 0):
            raise UserError(f"alpha is {self.alpha}, beta {self.beta}; both must be positive.")

    def sample(self, units: int, rng: np.random.Generator) -> Array:
        """The weights of view a and view b, float64 [2, units]; the last half is reversed."""
        of_a = rng.beta(self.alpha, self.beta, units)
        if self.reversed_half:
            half = units - units // 2
            of_a[half:] = 1 - of_a[half:]
        return np.stack([of_a, 1 - of_a])

    def cdf(self, weight: ArrayLike) -> Array:
        """P(w <= weight) of view a, for weights from 0 to 1 of any shape."""
        w = np.asarray(weight, dtype=np.float64)
        plain: Array = beta_distribution.cdf(w, self.alpha, self.beta)
        if not self.reversed_half:
            return plain
        flipped: Array = beta_distribution.sf(1 - w, self.alpha, self.beta)
        return (plain + flipped) / 2


def rsv_cdf(rsv: ArrayLike, distribution: BetaWeights, covariance: ArrayLike) -> Array:
    """The distribution function of the RSV, P(RSV <= r), in closed form.

    The RSV grows with w, and RSV = r is reached at

        w / (1-w) = sqrt((1+r) Var(x_b) / ((1-r) Var(x_a))),

    so P(RSV <= r) = P(weight <= w). Its differences between the edges of bins are the expected
    shares of a histogram.

    Source: from Kleinman, Achille & Soatto (CVPR 2023), appendix A.1 and Fig. 3.

    Args:
        rsv: r from -1 to 1, any shape, which is that of the result.
        distribution: of the weights.
        covariance: of the two views, [2, 2].

    Raises:
        UserError: an RSV is not from -1 to 1, or the covariance is not one of two views that vary.

    Example:
        >>> from critical_periods.linear import views_covariance
        >>> alike = views_covariance(1.0, [1.0, 1.0])
        >>> rsv_cdf([-1.0, 0.0, 1.0], BetaWeights(20, 20), alike)
        array([0. , 0.5, 1. ])
    """
    r = np.asarray(rsv, dtype=np.float64)
    _, cov = checked_weights(np.ones(2), covariance)
    var_a, var_b = np.diag(cov)
    if not (abs(r) <= 1).all():
        raise UserError(f"rsv runs from {r.min()} to {r.max()}; give numbers from -1 to 1.")
    if not (var_a > 0 and var_b > 0):
        raise UserError(f"the views have variances {var_a} and {var_b}; both must be positive.")
    of_a, of_b = np.sqrt((1 + r) * var_b), np.sqrt((1 - r) * var_a)
    return distribution.cdf(of_a / (of_a + of_b))


# The four simulations of Fig. 3; the first is one population alone.
FIGURE_3 = (
    BetaWeights(10, 20, reversed_half=False),
    BetaWeights(1, 20),
    BetaWeights(20, 20),
    BetaWeights(30, 20),
)
