"""Deficits: modules from batch to batch, which a ``DeficitWindow`` applies in some epochs."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from critical_periods.deficits.blur import Blur as Blur
    from critical_periods.deficits.deficit import Deficit as Deficit
    from critical_periods.deficits.deficit import DeficitSlot as DeficitSlot
    from critical_periods.deficits.dissociation import Dissociation as Dissociation
    from critical_periods.deficits.flip import VerticalFlip as VerticalFlip
    from critical_periods.deficits.label_noise import LabelNoise as LabelNoise
    from critical_periods.deficits.labels import LabelPermutation as LabelPermutation
    from critical_periods.deficits.noise import GaussianNoise as GaussianNoise
    from critical_periods.deficits.occlusion import Occlusion as Occlusion

# Everything about linear networks lives in one room; these names are known here, too.
_LINEAR = {"OtherMatrix": "critical_periods.linear.other_matrix"}
__getattr__, __dir__, __all__ = lazy_names(__name__, __file__, _LINEAR)
