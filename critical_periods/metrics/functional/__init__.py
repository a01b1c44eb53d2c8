"""The measures as pure functions of tensors, networks and functions."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .fisher import fisher_trace as fisher_trace
    from .fisher import squared_score_norms as squared_score_norms
    from .information import usable_information as usable_information
    from .learned_noise import WeightInformation as WeightInformation
    from .learned_noise import weight_information as weight_information
    from .likelihood import mean_loss as mean_loss
    from .maps import energy_share as energy_share
    from .maps import grad_cam as grad_cam
    from .plasticity import dormant as dormant
    from .plasticity import effective_rank as effective_rank
    from .plasticity import gradient_agreement as gradient_agreement
    from .plasticity import stable_rank as stable_rank
    from .plasticity import unit_features as unit_features
    from .plasticity import weight_distance as weight_distance
    from .rsv import relative_source_variance as relative_source_variance
    from .rsv import source_variance as source_variance
    from .rsv_summary import dead_units as dead_units
    from .rsv_summary import polarization as polarization
    from .rsv_summary import rsv_histogram as rsv_histogram

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
