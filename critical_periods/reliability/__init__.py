"""How likely a failure is, from few evaluations: subset simulation and a deep-kernel GP."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .active import ActiveReliability as ActiveReliability
    from .active import Round as Round
    from .architecture import GRID as GRID
    from .architecture import PLAIN as PLAIN
    from .architecture import Architecture as Architecture
    from .architecture import Choice as Choice
    from .deep_kernel import DeepKernelGP as DeepKernelGP
    from .learning import expected_feasibility as expected_feasibility
    from .learning import misclassification as misclassification
    from .marginals import Exponential as Exponential
    from .marginals import Independent as Independent
    from .marginals import LogNormal as LogNormal
    from .marginals import Normal as Normal
    from .marginals import Uniform as Uniform
    from .subset import SubsetSimulation as SubsetSimulation
    from .subset import subset_simulation as subset_simulation

__getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
