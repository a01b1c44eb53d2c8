"""torchgeo: its own tasks, with dict batches and torchmetrics inside."""

from typing import Any

import pytest
import torch
from checks import (
    ThirdParty,
    deficit_acts_only_where_it_should,
    measures_equal_a_loop,
    monitors_change_nothing,
)
from torch.utils.data import DataLoader

from critical_periods.callbacks import Project
from critical_periods.deficits import Blur, LabelPermutation

trainers = pytest.importorskip("torchgeo.trainers")

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(24, 4, 32, 32, generator=GENERATOR)
LABELS = torch.arange(24) % 3
MASKS = (torch.rand(24, 32, 32, generator=GENERATOR) > 0.5).long()


def loaders(**more: Any) -> tuple[Any, Any]:
    """Four bands, with coordinates beside them as geographic data sets have them."""
    rows = [
        {"image": image, "label": label, "bounds": torch.tensor([0.0, 1.0, 0.0, 1.0])}
        | {name: values[place] for name, values in more.items()}
        for place, (image, label) in enumerate(zip(IMAGES, LABELS, strict=True))
    ]
    return DataLoader(rows, 8, shuffle=True), DataLoader(rows, 12)


CLASSIFICATION = ThirdParty(
    lambda: trainers.ClassificationTask(
        model="test_resnet", in_channels=4, num_classes=3, loss="ce", lr=0.01
    ),
    loaders,
    lambda module, batch: module(batch["image"]),
    lambda batch: batch["label"],
    framework="lightning.pytorch",
)


def test_monitors_change_nothing():
    monitors_change_nothing(CLASSIFICATION)


def test_a_blur_acts_on_the_image_alone():
    def edited(batch: Any) -> Any:
        return {"['image']": Blur(2).degrade(batch["image"])}

    deficit_acts_only_where_it_should(CLASSIFICATION, Blur(2), edited)


def test_permuted_labels_leave_the_image():
    deficit = LabelPermutation(seed=1, num_classes=3)

    def edited(batch: Any) -> Any:
        return {"['label']": deficit.permutation[batch["label"]]}

    deficit_acts_only_where_it_should(CLASSIFICATION, deficit, edited)


def test_measures_equal_a_loop():
    measures_equal_a_loop(CLASSIFICATION)


def segmentation(project: Project) -> ThirdParty:
    return ThirdParty(
        lambda: trainers.SemanticSegmentationTask(
            model="fcn", in_channels=4, num_classes=2, num_filters=4, loss="ce"
        ),
        lambda: loaders(mask=MASKS),
        lambda module, batch: module(batch["image"]),
        lambda batch: batch["mask"],
        project,
        "lightning.pytorch",
    )


def test_the_image_of_a_segmentation_is_blurred_and_its_mask_is_not():
    def edited(batch: Any) -> Any:
        return {"['image']": Blur(2).degrade(batch["image"])}

    case = segmentation(Project(inputs="image", target="label"))
    deficit_acts_only_where_it_should(case, Blur(2), edited)
