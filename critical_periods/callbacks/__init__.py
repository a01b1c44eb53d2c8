"""Callbacks for any Lightning project: deficits in and out, measures while training."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from critical_periods.callbacks.learning_rate_restart import (
        LearningRateRestart as LearningRateRestart,
    )
    from critical_periods.callbacks.monitors.fisher_monitor import FisherMonitor as FisherMonitor
    from critical_periods.callbacks.monitors.reconstruction_monitor import (
        ReconstructionMonitor as ReconstructionMonitor,
    )
    from critical_periods.callbacks.monitors.source_variance_monitor import (
        SourceVarianceMonitor as SourceVarianceMonitor,
    )
    from critical_periods.callbacks.monitors.usable_information_monitor import (
        UsableInformationMonitor as UsableInformationMonitor,
    )
    from critical_periods.callbacks.monitors.weight_information_monitor import (
        WeightInformationMonitor as WeightInformationMonitor,
    )
    from critical_periods.callbacks.windows.deficit_window import DeficitWindow as DeficitWindow
    from critical_periods.callbacks.windows.freeze_window import FreezeWindow as FreezeWindow
    from critical_periods.callbacks.windows.regularization_window import (
        RegularizationWindow as RegularizationWindow,
    )
    from critical_periods.callbacks.windows.subset_window import SubsetWindow as SubsetWindow

# Everything about linear networks lives in one room; these names are known here, too.
_LINEAR = {"ModeMonitor": "critical_periods.linear.mode_monitor"}
__getattr__, __dir__, __all__ = lazy_names(__name__, __file__, _LINEAR)
