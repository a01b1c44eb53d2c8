"""The measures as ``torchmetrics.Metric``, accumulated over batches and processes."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .fisher import FisherTrace as FisherTrace
    from .information import UsableInformation as UsableInformation
    from .rsv import RelativeSourceVariance as RelativeSourceVariance

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
