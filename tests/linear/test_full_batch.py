"""Data that is one batch goes the same way as all other data."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from batches import evaluated, measured, place, training
from small_runs import quiet_trainer
from torch import Tensor, nn

from critical_periods.callbacks import DeficitWindow
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.deficits import Deficit, GaussianNoise
from critical_periods.linear import HierarchyDataModule


class Double(Deficit):
    """Twice what there is."""

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return 2 * images


class Witness(pl.LightningModule):
    """Notes the brightest pixel of all that it trains and validates on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 15)
        self.trained: list[float] = []
        self.validated: list[float] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.trained.append(batch.views.max().item())
        return self.layer(batch.views.flatten(1)).square().mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated.append(batch.views.max().item())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("validate", [False, True])
def test_a_window_reaches_validation_where_it_is_asked_to(validate: bool):
    """As in every DataModule with a slot; with data of one batch it once did not."""
    data, task = HierarchyDataModule(), Witness()
    window = DeficitWindow(Double(), onset=1, removal=2, validate=validate)
    quiet_trainer(window, max_epochs=3, num_sanity_val_steps=2).fit(task, data)
    assert task.trained == [1, 2, 1]
    # The sanity check comes before all.
    assert task.validated == [1, 1, 2 if validate else 1, 1]


def test_every_process_has_the_whole_batch_and_the_same_noise():
    data = HierarchyDataModule()
    data.setup()
    data.deficits.fill([GaussianNoise()], [GaussianNoise()])
    alone = training(data, 3)
    place(data, 1, 2, validating=True)
    for one, other in zip(alone, training(data, 3), strict=True):
        assert torch.equal(one, other)
    assert sorted(alone.index.tolist()) == list(range(8))
    assert not torch.equal(evaluated(data).views, data.batch.views)
    # Measurements are clean, and of the first samples.
    place(data, 1, 2)
    assert torch.equal(measured(data, "train", 5).views, data.batch.views[:5])
    with pytest.raises(UserError, match="split='tets' is not one of 'train', 'val' and 'test'"):
        data.measurement_loader("tets")
