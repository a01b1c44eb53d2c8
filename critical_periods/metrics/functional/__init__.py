"""The mathematics of the measures: pure functions without state."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from critical_periods.metrics.functional.fisher import (
        fisher_trace as fisher_trace,
    )
    from critical_periods.metrics.functional.fisher import (
        squared_score_norms as squared_score_norms,
    )
    from critical_periods.metrics.functional.information import (
        usable_information as usable_information,
    )
    from critical_periods.metrics.functional.learned_noise import (
        WeightInformation as WeightInformation,
    )
    from critical_periods.metrics.functional.learned_noise import (
        weight_information as weight_information,
    )
    from critical_periods.metrics.functional.rsv import (
        relative_source_variance as relative_source_variance,
    )
    from critical_periods.metrics.functional.rsv import (
        source_variance as source_variance,
    )
    from critical_periods.metrics.functional.rsv_summary import (
        channel_mean as channel_mean,
    )
    from critical_periods.metrics.functional.rsv_summary import (
        dead_units as dead_units,
    )
    from critical_periods.metrics.functional.rsv_summary import (
        polarization as polarization,
    )
    from critical_periods.metrics.functional.rsv_summary import (
        rsv_histogram as rsv_histogram,
    )

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
