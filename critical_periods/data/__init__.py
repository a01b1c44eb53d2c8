"""Data sets and DataModules: images in memory, batches made whole on the device."""

from critical_periods.data.cifar10 import CIFAR10DataModule, StereoCIFAR10DataModule
from critical_periods.data.digits import DigitsDataModule, StereoDigitsDataModule

__all__ = [
    "CIFAR10DataModule",
    "DigitsDataModule",
    "StereoCIFAR10DataModule",
    "StereoDigitsDataModule",
]
