"""Deep linear networks in theory and in training: closed forms, networks, data, tasks, monitor."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .full_batch import FullBatchDataModule as FullBatchDataModule
    from .hierarchy import HierarchyDataModule as HierarchyDataModule
    from .matrix import MatrixDataModule as MatrixDataModule
    from .matrix_completion import MatrixCompletionTask as MatrixCompletionTask
    from .mode_monitor import ModeMonitor as ModeMonitor
    from .multi_path_linear import MultiPathLinear as MultiPathLinear
    from .other_matrix import OtherMatrix as OtherMatrix
    from .regression import RegressionTask as RegressionTask
    from .theory.beta_weights import FIGURE_3 as FIGURE_3
    from .theory.beta_weights import BetaWeights as BetaWeights
    from .theory.beta_weights import rsv_cdf as rsv_cdf
    from .theory.closed_form import deep_strengths as deep_strengths
    from .theory.closed_form import deep_weights as deep_weights
    from .theory.closed_form import mode_strengths as mode_strengths
    from .theory.closed_form import shallow_strengths as shallow_strengths
    from .theory.closed_form import shallow_weights as shallow_weights
    from .theory.comparison import Comparison as Comparison
    from .theory.comparison import compare as compare
    from .theory.correlations import Dropped as Dropped
    from .theory.correlations import drop_sensors as drop_sensors
    from .theory.correlations import five_tasks as five_tasks
    from .theory.flow import descent as descent
    from .theory.flow import gradient_flow as gradient_flow
    from .theory.layers import product as product
    from .theory.multi_path import Freeze as Freeze
    from .theory.multi_path import layer_strength as layer_strength
    from .theory.multi_path import path_strengths as path_strengths
    from .theory.multi_path import strength as strength
    from .theory.simulation import DeepLinear as DeepLinear
    from .theory.simulation import gradient_descent as gradient_descent
    from .theory.source_variances import conditional_variances as conditional_variances
    from .theory.source_variances import marginal_variances as marginal_variances
    from .theory.source_variances import relative_variances as relative_variances
    from .theory.source_variances import sample_views as sample_views
    from .theory.source_variances import views_covariance as views_covariance
    from .theory.starts import balanced_starts as balanced_starts
    from .theory.starts import random_starts as random_starts

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
