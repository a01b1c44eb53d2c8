"""Deep linear networks in theory and in training: closed forms, networks, data, tasks, monitor."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from critical_periods.linear.full_batch import FullBatchDataModule as FullBatchDataModule
    from critical_periods.linear.hierarchy import HierarchyDataModule as HierarchyDataModule
    from critical_periods.linear.matrix import MatrixDataModule as MatrixDataModule
    from critical_periods.linear.matrix_completion import (
        MatrixCompletionTask as MatrixCompletionTask,
    )
    from critical_periods.linear.mode_monitor import ModeMonitor as ModeMonitor
    from critical_periods.linear.multi_path_linear import MultiPathLinear as MultiPathLinear
    from critical_periods.linear.other_matrix import OtherMatrix as OtherMatrix
    from critical_periods.linear.regression import RegressionTask as RegressionTask
    from critical_periods.linear.theory.beta_weights import FIGURE_3 as FIGURE_3
    from critical_periods.linear.theory.beta_weights import BetaWeights as BetaWeights
    from critical_periods.linear.theory.beta_weights import rsv_cdf as rsv_cdf
    from critical_periods.linear.theory.closed_form import deep_strengths as deep_strengths
    from critical_periods.linear.theory.closed_form import deep_weights as deep_weights
    from critical_periods.linear.theory.closed_form import mode_strengths as mode_strengths
    from critical_periods.linear.theory.closed_form import shallow_strengths as shallow_strengths
    from critical_periods.linear.theory.closed_form import shallow_weights as shallow_weights
    from critical_periods.linear.theory.comparison import Comparison as Comparison
    from critical_periods.linear.theory.comparison import compare as compare
    from critical_periods.linear.theory.correlations import Dropped as Dropped
    from critical_periods.linear.theory.correlations import drop_sensors as drop_sensors
    from critical_periods.linear.theory.correlations import five_tasks as five_tasks
    from critical_periods.linear.theory.flow import descent as descent
    from critical_periods.linear.theory.flow import gradient_flow as gradient_flow
    from critical_periods.linear.theory.layers import product as product
    from critical_periods.linear.theory.multi_path import Freeze as Freeze
    from critical_periods.linear.theory.multi_path import layer_strength as layer_strength
    from critical_periods.linear.theory.multi_path import path_strengths as path_strengths
    from critical_periods.linear.theory.multi_path import strength as strength
    from critical_periods.linear.theory.simulation import DeepLinear as DeepLinear
    from critical_periods.linear.theory.simulation import gradient_descent as gradient_descent
    from critical_periods.linear.theory.source_variances import (
        conditional_variances as conditional_variances,
    )
    from critical_periods.linear.theory.source_variances import (
        marginal_variances as marginal_variances,
    )
    from critical_periods.linear.theory.source_variances import (
        relative_variances as relative_variances,
    )
    from critical_periods.linear.theory.source_variances import sample_views as sample_views
    from critical_periods.linear.theory.source_variances import views_covariance as views_covariance
    from critical_periods.linear.theory.starts import balanced_starts as balanced_starts
    from critical_periods.linear.theory.starts import random_starts as random_starts

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
