"""Figures from tables, without training: each function returns a matplotlib ``Figure``."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .boundary import plot_boundary as plot_boundary
    from .cross import plot_cross as plot_cross
    from .curve import plot_curve as plot_curve
    from .curve import plot_sensitivity as plot_sensitivity
    from .curve import plot_surface as plot_surface
    from .linear_dynamics import plot_linear_dynamics as plot_linear_dynamics
    from .recovery import plot_recovery as plot_recovery
    from .remedies import plot_remedies as plot_remedies
    from .rsv import plot_rsv as plot_rsv
    from .rsv import plot_rsv_through_epochs as plot_rsv_through_epochs
    from .rsv import plot_synthetic_rsv as plot_synthetic_rsv
    from .style import save as save
    from .through_epochs import plot_fisher as plot_fisher
    from .through_epochs import plot_information as plot_information
    from .through_epochs import plot_layers as plot_layers
    from .through_epochs import plot_measure as plot_measure
    from .through_epochs import plot_modes as plot_modes
    from .through_epochs import plot_reconstruction as plot_reconstruction
    from .through_epochs import plot_success as plot_success

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
