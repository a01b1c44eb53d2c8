"""Data sets and DataModules: images in memory, batches made whole on the device."""

from critical_periods.data.cifar10 import CIFAR10DataModule, StereoCIFAR10DataModule
from critical_periods.data.digits import DigitsDataModule, StereoDigitsDataModule
from critical_periods.data.hierarchy import HierarchyDataModule
from critical_periods.data.matrix import MatrixDataModule
from critical_periods.data.mnist import FashionMNISTDataModule, MNISTDataModule

__all__ = [
    "CIFAR10DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "HierarchyDataModule",
    "MNISTDataModule",
    "MatrixDataModule",
    "StereoCIFAR10DataModule",
    "StereoDigitsDataModule",
]
