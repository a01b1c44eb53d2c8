"""Tasks: what a network is trained to do."""

from critical_periods.tasks.classification import ClassificationTask
from critical_periods.tasks.masked_reconstruction import MaskedReconstructionTask
from critical_periods.tasks.matrix_completion import MatrixCompletionTask
from critical_periods.tasks.regression import RegressionTask
from critical_periods.tasks.transformer_classification import TransformerClassificationTask

__all__ = [
    "ClassificationTask",
    "MaskedReconstructionTask",
    "MatrixCompletionTask",
    "RegressionTask",
    "TransformerClassificationTask",
]
