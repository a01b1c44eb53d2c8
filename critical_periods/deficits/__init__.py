"""Deficits: modules from batch to batch that a window puts in and takes out."""

from critical_periods.deficits.blur import Blur
from critical_periods.deficits.deficit import Deficit, DeficitSlot
from critical_periods.deficits.dissociation import Dissociation
from critical_periods.deficits.flip import VerticalFlip
from critical_periods.deficits.label_noise import LabelNoise
from critical_periods.deficits.labels import LabelPermutation
from critical_periods.deficits.noise import GaussianNoise
from critical_periods.deficits.occlusion import Occlusion
from critical_periods.deficits.other_matrix import OtherMatrix

__all__ = [
    "Blur",
    "Deficit",
    "DeficitSlot",
    "Dissociation",
    "GaussianNoise",
    "LabelNoise",
    "LabelPermutation",
    "Occlusion",
    "OtherMatrix",
    "VerticalFlip",
]
