"""Callbacks for any Lightning project: deficits in and out, measures while training."""

from critical_periods.callbacks.deficit_window import DeficitWindow
from critical_periods.callbacks.fisher_monitor import FisherMonitor
from critical_periods.callbacks.freeze_window import FreezeWindow
from critical_periods.callbacks.learning_rate_restart import LearningRateRestart
from critical_periods.callbacks.mode_monitor import ModeMonitor
from critical_periods.callbacks.reconstruction_monitor import ReconstructionMonitor
from critical_periods.callbacks.regularization_window import RegularizationWindow
from critical_periods.callbacks.source_variance_monitor import SourceVarianceMonitor
from critical_periods.callbacks.subset_window import SubsetWindow
from critical_periods.callbacks.usable_information_monitor import UsableInformationMonitor
from critical_periods.callbacks.weight_information_monitor import WeightInformationMonitor

__all__ = [
    "DeficitWindow",
    "FisherMonitor",
    "FreezeWindow",
    "LearningRateRestart",
    "ModeMonitor",
    "ReconstructionMonitor",
    "RegularizationWindow",
    "SourceVarianceMonitor",
    "SubsetWindow",
    "UsableInformationMonitor",
    "WeightInformationMonitor",
]
