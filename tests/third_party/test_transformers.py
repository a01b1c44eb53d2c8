"""transformers: models that take keywords and answer with an object."""

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
from torch.utils.data import DataLoader

from critical_periods.callbacks import Project
from critical_periods.deficits import LabelPermutation, VerticalFlip

transformers = pytest.importorskip("transformers")

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(24, 3, 16, 16, generator=GENERATOR)
TOKENS = torch.randint(5, 30, (24, 6), generator=GENERATOR)
LABELS = torch.arange(24) % 3
SMALL: Any = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "num_labels": 3, "attn_implementation": "eager",
}  # fmt: skip


class Classifier(lightning.LightningModule):
    """As in the examples of Lightning: a model that takes the batch by its keywords."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return self.model(**inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self(**batch).loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self(**batch).loss)

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def loaders(**columns: Any) -> tuple[Any, Any]:
    rows = [{name: column[place] for name, column in columns.items()} for place in range(24)]
    return DataLoader(rows, 8, shuffle=True), DataLoader(rows, 12)


def vision() -> Any:
    config = transformers.ViTConfig(image_size=16, patch_size=8, **SMALL)
    return Classifier(transformers.ViTForImageClassification(config))


def text() -> Any:
    config = transformers.BertConfig(vocab_size=30, max_position_embeddings=8, **SMALL)
    return Classifier(transformers.BertForSequenceClassification(config))


VISION = ThirdParty(
    vision,
    lambda: loaders(pixel_values=IMAGES, labels=LABELS),
    lambda module, batch: module(pixel_values=batch["pixel_values"]).logits,
    lambda batch: batch["labels"],
    Project(inputs="pixel_values", target="labels", network="model", logits="logits"),
    "lightning.pytorch",
)
TEXT = ThirdParty(
    text,
    lambda: loaders(input_ids=TOKENS, labels=LABELS),
    lambda module, batch: module(input_ids=batch["input_ids"]).logits,
    lambda batch: batch["labels"],
    Project(inputs="input_ids", target="labels", network="model", logits="logits"),
    "lightning.pytorch",
)


@pytest.mark.parametrize("case", [VISION, TEXT], ids=["images", "tokens"])
def test_monitors_change_nothing(case: ThirdParty):
    monitors_change_nothing(case)


@pytest.mark.parametrize("case", [VISION, TEXT], ids=["images", "tokens"])
def test_measures_equal_a_loop(case: ThirdParty):
    measures_equal_a_loop(case)


def test_a_flip_acts_on_the_images_alone():
    def edited(batch: Any) -> Any:
        return {"['pixel_values']": batch["pixel_values"].flip(-2)}

    deficit_acts_only_where_it_should(VISION, VerticalFlip(), edited)


def test_permuted_labels_leave_the_tokens():
    deficit = LabelPermutation(seed=1, num_classes=3)

    def edited(batch: Any) -> Any:
        return {"['labels']": deficit.permutation[batch["labels"]]}

    deficit_acts_only_where_it_should(TEXT, deficit, edited)
