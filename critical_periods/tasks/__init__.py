"""Tasks: what a network is trained to do."""

from critical_periods.tasks.classification import ClassificationTask
from critical_periods.tasks.matrix_completion import MatrixCompletionTask
from critical_periods.tasks.regression import RegressionTask

__all__ = [
    "ClassificationTask",
    "MatrixCompletionTask",
    "RegressionTask",
]
