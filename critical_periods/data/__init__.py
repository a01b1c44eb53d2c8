"""Data sets, and DataModules that make their batches on the device."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from .cifar10 import CIFAR10DataModule as CIFAR10DataModule
    from .cifar10 import StereoCIFAR10DataModule as StereoCIFAR10DataModule
    from .digits import DigitsDataModule as DigitsDataModule
    from .digits import StereoDigitsDataModule as StereoDigitsDataModule
    from .faces import FacesDataModule as FacesDataModule
    from .image_folder import ImageFolderDataModule as ImageFolderDataModule
    from .mnist import FashionMNISTDataModule as FashionMNISTDataModule
    from .mnist import MNISTDataModule as MNISTDataModule
    from .moving_digits import MovingDigitsDataModule as MovingDigitsDataModule
    from .stereograms import StereogramDataModule as StereogramDataModule
    from .video.kinetics import KineticsDataModule as KineticsDataModule

# Everything about linear networks, and about agents, lives in a room of its own; these names are
# known here, too.
_ELSEWHERE = {
    "EnvironmentDataModule": "critical_periods.guidance.data",
    "HierarchyDataModule": "critical_periods.linear.hierarchy",
    "MatrixDataModule": "critical_periods.linear.matrix",
}
__getattr__, __dir__, __all__ = lazy_names(__name__, __file__, _ELSEWHERE)
