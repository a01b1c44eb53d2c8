"""Closed forms to hold the rest against: deep linear learning, and synthetic source variance."""

from __future__ import annotations

from critical_periods.theory.closed_form import (
    deep_strengths,
    deep_weights,
    mode_strengths,
    shallow_strengths,
    shallow_weights,
)
from critical_periods.theory.comparison import Comparison, compare
from critical_periods.theory.correlations import Dropped, drop_sensors, five_tasks
from critical_periods.theory.flow import descent, gradient_flow, product
from critical_periods.theory.multi_path import Freeze, layer_strength, path_strengths, strength
from critical_periods.theory.simulation import DeepLinear, gradient_descent
from critical_periods.theory.starts import balanced_starts, random_starts
from critical_periods.theory.synthetic import (
    FIGURE_3,
    BetaWeights,
    conditional_variances,
    marginal_variances,
    relative_variances,
    rsv_cdf,
    sample_views,
    views_covariance,
)

__all__ = [
    "FIGURE_3",
    "BetaWeights",
    "Comparison",
    "DeepLinear",
    "Dropped",
    "Freeze",
    "balanced_starts",
    "compare",
    "conditional_variances",
    "deep_strengths",
    "deep_weights",
    "descent",
    "drop_sensors",
    "five_tasks",
    "gradient_descent",
    "gradient_flow",
    "layer_strength",
    "marginal_variances",
    "mode_strengths",
    "path_strengths",
    "product",
    "random_starts",
    "relative_variances",
    "rsv_cdf",
    "sample_views",
    "shallow_strengths",
    "shallow_weights",
    "strength",
    "views_covariance",
]
