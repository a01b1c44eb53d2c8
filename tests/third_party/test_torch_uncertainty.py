"""torch-uncertainty: its classification routine, many metrics and features kept by its forward."""

import pytest
import torch
from checks import (
    ThirdParty,
    deficit_acts_only_where_it_should,
    measures_equal_a_loop,
    monitors_change_nothing,
)
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.deficits import VerticalFlip

routines = pytest.importorskip("torch_uncertainty.routines")

IMAGES = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 4


class Network(nn.Module):
    """A small convolutional network with dropout and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2)
        )
        self.linear = nn.Linear(8 * 49, 4)

    def feats_forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.feats_forward(images))


def routine(**settings: object) -> object:
    network = Network()
    return routines.ClassificationRoutine(
        network,
        num_classes=4,
        loss=nn.CrossEntropyLoss(),
        optim_recipe=torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9),
        **settings,
    )


CASE = ThirdParty(
    routine,
    lambda: (
        DataLoader(TensorDataset(IMAGES, LABELS), 8, shuffle=True),
        DataLoader(TensorDataset(IMAGES, LABELS), 12),
    ),
    lambda module, batch: module(batch[0]),
    lambda batch: batch[1],
    framework="lightning.pytorch",
)


def test_monitors_change_nothing():
    monitors_change_nothing(CASE)


def test_a_flip_acts_on_the_image_alone():
    deficit_acts_only_where_it_should(
        CASE, VerticalFlip(), lambda batch: {"[0]": batch[0].flip(-2)}
    )


def test_measures_equal_a_loop():
    measures_equal_a_loop(CASE)
