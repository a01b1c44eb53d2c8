"""Data sets, and DataModules that make their batches on the device."""

from typing import TYPE_CHECKING

from critical_periods.core.lazy import lazy_names

if TYPE_CHECKING:
    from critical_periods.data.cifar10 import (
        CIFAR10DataModule as CIFAR10DataModule,
    )
    from critical_periods.data.cifar10 import (
        StereoCIFAR10DataModule as StereoCIFAR10DataModule,
    )
    from critical_periods.data.digits import (
        DigitsDataModule as DigitsDataModule,
    )
    from critical_periods.data.digits import (
        StereoDigitsDataModule as StereoDigitsDataModule,
    )
    from critical_periods.data.mnist import (
        FashionMNISTDataModule as FashionMNISTDataModule,
    )
    from critical_periods.data.mnist import (
        MNISTDataModule as MNISTDataModule,
    )
    from critical_periods.data.moving_digits import MovingDigitsDataModule as MovingDigitsDataModule
    from critical_periods.data.stereograms import StereogramDataModule as StereogramDataModule
    from critical_periods.data.video.kinetics import KineticsDataModule as KineticsDataModule

# Everything about linear networks lives in one room; these names are known here, too.
_LINEAR = {
    "HierarchyDataModule": "critical_periods.linear.hierarchy",
    "MatrixDataModule": "critical_periods.linear.matrix",
}
__getattr__, __dir__, __all__ = lazy_names(__name__, __file__, _LINEAR)
