"""MONAI: dict batches of MetaTensors from a cached data set whose random transforms keep state."""

from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
from checks import (
    ThirdParty,
    deficit_acts_only_where_it_should,
    measures_equal_a_loop,
    monitors_change_nothing,
)
from torch import nn

from critical_periods.callbacks import DeficitWindow, Project
from critical_periods.core.errors import UserError
from critical_periods.deficits import Blur

monai = pytest.importorskip("monai")
data = pytest.importorskip("monai.data")
nets = pytest.importorskip("monai.networks.nets")
transforms = pytest.importorskip("monai.transforms")

SCANS = torch.randn(24, 16, 16, generator=torch.Generator().manual_seed(0))
ROWS = [
    {"image": scan.numpy(), "mask": (scan > 0).float().numpy(), "class": place % 2}
    for place, scan in enumerate(SCANS)
]


class Classifier(lightning.LightningModule):
    """As in MONAI's tutorials of Lightning."""

    def __init__(self) -> None:
        super().__init__()
        self._model = nets.DenseNet(
            spatial_dims=2, in_channels=1, out_channels=2, init_features=4, growth_rate=2,
            block_config=(1, 1),
        )  # fmt: skip
        self.loss_function = nn.CrossEntropyLoss()

    def forward(self, x: Any) -> Any:
        return self._model(x)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss_function(self.forward(batch["image"]), batch["class"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss_function(self.forward(batch["image"]), batch["class"]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self._model.parameters(), 1e-3)


class Segmenter(Classifier):
    """A segmentation, whose mask has the shape and the type of the image."""

    def __init__(self) -> None:
        super().__init__()
        self._model = nets.UNet(
            spatial_dims=2, in_channels=1, out_channels=1, channels=(4, 8), strides=(2,)
        )
        self.loss_function = monai.losses.DiceLoss(sigmoid=True)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss_function(self.forward(batch["image"]), batch["mask"])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss_function(self.forward(batch["image"]), batch["mask"]))


def loaders(*keys: str) -> tuple[Any, Any]:
    """A cached data set, whose transforms draw from generators that go on from epoch to epoch."""
    monai.utils.set_determinism(0)
    rows = [{key: row[key] for key in (*keys, "class")} for row in ROWS]
    always = [
        transforms.EnsureChannelFirstd(keys=keys, channel_dim="no_channel"),
        transforms.EnsureTyped(keys=keys),
    ]
    random = [
        transforms.RandGaussianNoised(keys="image", prob=0.7, std=0.1),
        transforms.RandFlipd(keys=keys, prob=0.5, spatial_axis=0),
    ]
    train = data.CacheDataset(rows, transforms.Compose(always + random), progress=False)
    val = data.Dataset(rows, transforms.Compose(always))
    return data.DataLoader(train, 8, shuffle=True), data.DataLoader(val, 12)


CLASSIFICATION = ThirdParty(
    Classifier,
    lambda: loaders("image"),
    lambda module, batch: module(batch["image"]),
    lambda batch: batch["class"],
    framework="lightning.pytorch",
)


def blurred(batch: Any) -> Any:
    return {"['image']": Blur(2).degrade(batch["image"])}


def test_monitors_change_nothing():
    monitors_change_nothing(CLASSIFICATION)


def test_a_blur_acts_on_the_image_alone():
    deficit_acts_only_where_it_should(CLASSIFICATION, Blur(2), blurred)


def test_measures_equal_a_loop():
    measures_equal_a_loop(CLASSIFICATION)


def segmentation(project: Project) -> ThirdParty:
    return ThirdParty(
        Segmenter,
        lambda: loaders("image", "mask"),
        lambda module, batch: module(batch["image"]),
        lambda batch: batch["mask"],
        project,
        "lightning.pytorch",
    )


def test_an_image_and_its_mask_are_not_taken_for_two_eyes():
    with pytest.raises(UserError, match=r"(?s)image.*mask.*Project"):
        segmentation(Project()).fit(DeficitWindow(Blur(2)))


def test_a_project_says_which_of_them_is_the_image():
    case = segmentation(Project(inputs="image"))
    deficit_acts_only_where_it_should(case, Blur(2), blurred)
