"""Callbacks for any Lightning project: deficits in and out, measures while training."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from critical_periods.core.project import Project as Project

    from .learning_rate_restart import LearningRateRestart as LearningRateRestart
    from .monitors.confusion_matrix_monitor import ConfusionMatrixMonitor as ConfusionMatrixMonitor
    from .monitors.cross_dataset_matrix import CrossDatasetMatrix as CrossDatasetMatrix
    from .monitors.excitation_monitor import ExcitationMonitor as ExcitationMonitor
    from .monitors.fisher_monitor import FisherMonitor as FisherMonitor
    from .monitors.plasticity_monitor import PlasticityMonitor as PlasticityMonitor
    from .monitors.reconstruction_monitor import ReconstructionMonitor as ReconstructionMonitor
    from .monitors.region_monitor import RegionMonitor as RegionMonitor
    from .monitors.robustness_monitor import RobustnessMonitor as RobustnessMonitor
    from .monitors.source_variance_monitor import SourceVarianceMonitor as SourceVarianceMonitor
    from .monitors.usable_information_monitor import (
        UsableInformationMonitor as UsableInformationMonitor,
    )
    from .monitors.weight_information_monitor import (
        WeightInformationMonitor as WeightInformationMonitor,
    )
    from .remedies.bias_reset import BiasReset as BiasReset
    from .remedies.dormant_unit_reset import DormantUnitReset as DormantUnitReset
    from .remedies.gradual_change import GradualChange as GradualChange
    from .remedies.initial_weight_decay import InitialWeightDecay as InitialWeightDecay
    from .remedies.layer_reset import LayerReset as LayerReset
    from .remedies.patching import Patching as Patching
    from .remedies.rate_change import RateChange as RateChange
    from .remedies.shrink_perturb import ShrinkPerturb as ShrinkPerturb
    from .windows.deficit_window import DeficitWindow as DeficitWindow
    from .windows.freeze_window import FreezeWindow as FreezeWindow
    from .windows.regularization_window import RegularizationWindow as RegularizationWindow
    from .windows.source_window import SourceWindow as SourceWindow
    from .windows.subset_window import SubsetWindow as SubsetWindow

# Everything about linear networks, and about agents, lives in a room of its own; these names are
# known here, too.
_ELSEWHERE = {
    "AgentMonitor": "critical_periods.guidance.monitor",
    "GuidanceWindow": "critical_periods.guidance.window",
    "ModeMonitor": "critical_periods.linear.mode_monitor",
}
__getattr__, __dir__, __all__ = lazy_names(__name__, __file__, _ELSEWHERE)
