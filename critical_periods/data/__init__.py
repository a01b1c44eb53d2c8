"""Data sets and DataModules: images in memory, batches made whole on the device."""

from critical_periods.data.cifar10 import CIFAR10DataModule, StereoCIFAR10DataModule
from critical_periods.data.digits import DigitsDataModule, StereoDigitsDataModule
from critical_periods.data.hierarchy import HierarchyDataModule
from critical_periods.data.kinetics import KineticsDataModule
from critical_periods.data.matrix import MatrixDataModule
from critical_periods.data.mnist import FashionMNISTDataModule, MNISTDataModule
from critical_periods.data.moving_digits import MovingDigitsDataModule
from critical_periods.data.stereograms import StereogramDataModule

__all__ = [
    "CIFAR10DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "HierarchyDataModule",
    "KineticsDataModule",
    "MNISTDataModule",
    "MatrixDataModule",
    "MovingDigitsDataModule",
    "StereoCIFAR10DataModule",
    "StereoDigitsDataModule",
    "StereogramDataModule",
]
