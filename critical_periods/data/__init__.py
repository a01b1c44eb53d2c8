"""Data sets and DataModules: images in memory, batches made whole on the device."""

from critical_periods.data.cifar10 import CIFAR10DataModule, StereoCIFAR10DataModule
from critical_periods.data.digits import DigitsDataModule, StereoDigitsDataModule
from critical_periods.data.mnist import FashionMNISTDataModule, MNISTDataModule

__all__ = [
    "CIFAR10DataModule",
    "DigitsDataModule",
    "FashionMNISTDataModule",
    "MNISTDataModule",
    "StereoCIFAR10DataModule",
    "StereoDigitsDataModule",
]
