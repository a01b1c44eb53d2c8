"""The measures as ``torchmetrics.Metric``: they add up over batches and processes."""

from critical_periods.metrics.fisher import FisherTrace
from critical_periods.metrics.information import UsableInformation
from critical_periods.metrics.rsv import RelativeSourceVariance

__all__ = ["FisherTrace", "RelativeSourceVariance", "UsableInformation"]
