"""Callbacks for any Lightning project: deficits in and out, measures while training."""

from critical_periods.callbacks.deficit_window import DeficitWindow
from critical_periods.callbacks.fisher_monitor import FisherMonitor
from critical_periods.callbacks.source_variance_monitor import SourceVarianceMonitor
from critical_periods.callbacks.usable_information_monitor import UsableInformationMonitor

__all__ = [
    "DeficitWindow",
    "FisherMonitor",
    "SourceVarianceMonitor",
    "UsableInformationMonitor",
]
