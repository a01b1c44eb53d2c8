"""Deficits: modules from batch to batch, which a ``DeficitWindow`` applies in some epochs."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .blur import Blur as Blur
    from .deficit import Deficit as Deficit
    from .deficit import DeficitSlot as DeficitSlot
    from .dissociation import Dissociation as Dissociation
    from .faded import Greyscale as Greyscale
    from .faded import LowContrast as LowContrast
    from .flip import VerticalFlip as VerticalFlip
    from .label_noise import LabelNoise as LabelNoise
    from .labels import LabelPermutation as LabelPermutation
    from .noise import GaussianNoise as GaussianNoise
    from .occlusion import Occlusion as Occlusion
    from .pixels import PixelPermutation as PixelPermutation

# Everything about linear networks lives in one room; these names are known here, too.
_LINEAR = {"OtherMatrix": "critical_periods.linear.other_matrix"}
__getattr__, __dir__, __all__ = lazy_names(__name__, __file__, _LINEAR)
