"""Data that is one batch goes the same way as all other data."""

import pytest
import pytorch_lightning as pl
import torch
from batches import evaluated, measured, place, training
from small_runs import quiet_trainer

from critical_periods.callbacks import DeficitWindow
from critical_periods.core.errors import UserError
from critical_periods.deficits import GaussianNoise, Occlusion
from critical_periods.linear import HierarchyDataModule, MultiPathLinear, RegressionTask


class Witness(pl.Callback):
    """Notes the brightest pixel of all that is trained and validated on."""

    def __init__(self) -> None:
        self.trained: list[float] = []
        self.validated: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.trained.append(batch.views.max().item())

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.validated.append(batch.views.max().item())


@pytest.mark.parametrize("validate", [False, True])
def test_a_window_reaches_validation_where_it_is_asked_to(validate: bool):
    """As in every DataModule with a slot; with data of one batch it once did not."""
    task, witness = RegressionTask(MultiPathLinear(2, 4)), Witness()
    window = DeficitWindow(Occlusion(), onset=1, removal=2, validate=validate)
    trainer = quiet_trainer(window, witness, max_epochs=3, num_sanity_val_steps=2)
    trainer.fit(task, HierarchyDataModule())
    assert witness.trained == [1, 0, 1]
    # The sanity check comes before all.
    assert witness.validated == [1, 1, 0 if validate else 1, 1]


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
