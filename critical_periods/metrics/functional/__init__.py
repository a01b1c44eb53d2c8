"""The mathematics of the measures: pure functions without state."""

from critical_periods.metrics.functional.fisher import fisher_trace, squared_score_norms
from critical_periods.metrics.functional.information import usable_information
from critical_periods.metrics.functional.rsv import relative_source_variance, source_variance
from critical_periods.metrics.functional.rsv_summary import (
    channel_mean,
    dead_units,
    polarization,
    rsv_histogram,
)
from critical_periods.metrics.functional.weight_information import (
    WeightInformation,
    weight_information,
)

__all__ = [
    "WeightInformation",
    "channel_mean",
    "dead_units",
    "fisher_trace",
    "polarization",
    "relative_source_variance",
    "rsv_histogram",
    "source_variance",
    "squared_score_norms",
    "usable_information",
    "weight_information",
]
