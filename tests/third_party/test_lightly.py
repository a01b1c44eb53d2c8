"""lightly: two augmented views of an image for self-supervision, then a linear classifier."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from checks import (
    ThirdParty,
    deficit_acts_only_where_it_should,
    measures_equal_a_loop,
    monitors_change_nothing,
)
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from critical_periods.deficits import Blur

benchmarking = pytest.importorskip("lightly.utils.benchmarking")
heads = pytest.importorskip("lightly.models.modules.heads")
losses = pytest.importorskip("lightly.loss")
view_transform = pytest.importorskip("lightly.transforms.multi_view_transform")

IMAGES = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 4


def backbone() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())


class BarlowTwins(pl.LightningModule):
    """As in lightly's documentation."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = backbone()
        self.projection_head = heads.BarlowTwinsProjectionHead(8 * 49, 16, 8)
        self.criterion = losses.BarlowTwinsLoss()

    def forward(self, x: Any) -> Any:
        return self.projection_head(self.backbone(x))

    def training_step(self, batch: Any, batch_index: int) -> Any:
        (x0, x1) = batch[0]
        return self.criterion(self.forward(x0), self.forward(x1))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class TwoViews(Dataset):
    """((view, view), label, file name), as LightlyDataset gives with a MultiViewTransform."""

    def __init__(self) -> None:
        noisy = [lambda image: image + 0.1 * torch.randn_like(image)] * 2
        self.transform = view_transform.MultiViewTransform(noisy)

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, place: int) -> Any:
        return self.transform(IMAGES[place]), LABELS[place], f"{place}.png"


PRETRAINING = ThirdParty(
    BarlowTwins,
    lambda: (DataLoader(TwoViews(), 8, shuffle=True, drop_last=True), None),
    lambda module, batch: module(batch[0][0]),
    lambda batch: batch[1],
)
LINEAR = ThirdParty(
    lambda: benchmarking.LinearClassifier(
        backbone(), batch_size_per_device=8, feature_dim=8 * 49, num_classes=4, topk=(1,)
    ),
    lambda: (
        DataLoader(TensorDataset(IMAGES, LABELS), 8, shuffle=True),
        DataLoader(TensorDataset(IMAGES, LABELS), 12),
    ),
    lambda module, batch: module(batch[0]),
    lambda batch: batch[1],
)


def test_a_blur_of_the_second_view_leaves_the_first():
    def edited(batch: Any) -> Any:
        return {"[0][1]": Blur(2).degrade(batch[0][1])}

    deficit_acts_only_where_it_should(PRETRAINING, Blur(2, views=[1]), edited)


def test_monitors_of_a_linear_classifier_change_nothing():
    monitors_change_nothing(LINEAR)


def test_measures_of_a_linear_classifier_equal_a_loop():
    # Its backbone is not trained and asks for no gradients, so its share of the trace is none.
    measures_equal_a_loop(LINEAR)
