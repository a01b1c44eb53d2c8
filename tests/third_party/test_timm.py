"""timm networks, with stochastic depth, in a module that is heavy with torchmetrics."""

from typing import Any

import pytest
import pytorch_lightning as pl
import timm
import torch
from checks import (
    ThirdParty,
    deficit_acts_only_where_it_should,
    measures_equal_a_loop,
    monitors_change_nothing,
)
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score
from torchmetrics.wrappers import MetricTracker

from critical_periods.deficits import Blur

IMAGES = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 3


class Classifier(pl.LightningModule):
    """Metrics as attributes, in a collection and in a tracker, logged in each of the usual ways."""

    def __init__(self, name: str, **settings: Any) -> None:
        super().__init__()
        self.backbone = timm.create_model(name, num_classes=3, **settings)
        self.accuracy = MulticlassAccuracy(3)
        self.collection = MetricCollection([MulticlassF1Score(3), MulticlassAUROC(3)])
        self.tracker = MetricTracker(MulticlassAccuracy(3))
        self.loss = MeanMetric()

    def forward(self, images: Any) -> Any:
        return self.backbone(images)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        logits = self(batch[0])
        loss = F.cross_entropy(logits, batch[1])
        self.accuracy(logits, batch[1])
        self.log("train/accuracy", self.accuracy, on_epoch=True)
        self.loss.update(loss)
        self.tracker.update(logits, batch[1])
        return loss

    def on_train_epoch_start(self) -> None:
        self.tracker.increment()

    def on_train_epoch_end(self) -> None:
        self.log("train/mean_loss", self.loss.compute())
        self.loss.reset()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.collection.update(self(batch[0]).softmax(1), batch[1])

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.collection.compute())
        self.collection.reset()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def case(name: str, **settings: Any) -> ThirdParty:
    return ThirdParty(
        lambda: Classifier(name, **settings),
        lambda: (
            DataLoader(TensorDataset(IMAGES, LABELS), 8, shuffle=True),
            DataLoader(TensorDataset(IMAGES, LABELS), 12),
        ),
        lambda module, batch: module(batch[0]),
        lambda batch: batch[1],
    )


CASES = [
    case("test_resnet", drop_path_rate=0.2),
    case("test_vit", img_size=32, drop_path_rate=0.2, attn_drop_rate=0.1),
]


@pytest.mark.parametrize("case", CASES, ids=["resnet", "vit"])
def test_monitors_change_nothing(case: ThirdParty):
    monitors_change_nothing(case)


@pytest.mark.parametrize("case", CASES, ids=["resnet", "vit"])
def test_measures_equal_a_loop(case: ThirdParty):
    measures_equal_a_loop(case)


def test_a_blur_acts_on_the_images_alone():
    deficit_acts_only_where_it_should(
        CASES[0], Blur(2), lambda batch: {"[0]": Blur(2).degrade(batch[0])}
    )
