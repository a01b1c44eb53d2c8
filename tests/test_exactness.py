"""Stopping and going on gives the same bits as never stopping."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import quiet_trainer
from torch import nn

from critical_periods.callbacks import DeficitWindow
from critical_periods.data import StereoDigitsDataModule
from critical_periods.deficits import Blur, GaussianNoise
from critical_periods.tasks import ClassificationTask


class Small(nn.Module):
    """Two small pathways, batch norm and dropout: everything that has state or draws."""

    def __init__(self) -> None:
        super().__init__()
        self.pathways = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)
            )
            for _ in range(2)
        )
        self.head = nn.Linear(8, 10)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.head((self.pathways[0](left) + self.pathways[1](right)).mean((2, 3)))


# How a run may leave checkpoints on its way: settings of ModelCheckpoint and of the Trainer, and
# the steps (5 an epoch) to go on from.
SAVING: dict[str, tuple[dict[str, Any], dict[str, Any], list[int]]] = {
    "by default": ({}, {}, [5, 15, 25]),
    "as training epochs end": ({"save_on_train_epoch_end": True}, {}, [5, 15, 25]),
    "as validation ends": ({"save_on_train_epoch_end": False}, {}, [5, 15, 25]),
    "at every step": ({"every_n_train_steps": 1}, {}, [1, 2, 5, 12, 14, 25, 29]),
    "as validation within epochs ends": ({}, {"val_check_interval": 2}, [2, 4, 12, 22, 29]),
    "every other epoch": ({"every_n_epochs": 2}, {"check_val_every_n_epoch": 2}, [10, 20]),
}


def train(
    folder: Path, epochs: int = 6, resume: Path | None = None, saving: str = "by default"
) -> dict[str, torch.Tensor]:
    """Trains to an epoch, with two windows, and leaves checkpoints on the way."""
    pl.seed_everything(7, verbose=False)
    task = ClassificationTask(
        Small(),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    )
    # A window may not reach beyond the last epoch; one without an end may.
    noise_removal, blur_removal = (5, 4) if epochs == 6 else (None, None)
    checkpoints, settings, _ = SAVING[saving]
    trainer = quiet_trainer(
        DeficitWindow(GaussianNoise(views=[0]), onset=1, removal=noise_removal),
        DeficitWindow(Blur(views=[1]), onset=0, removal=blur_removal),
        ModelCheckpoint(folder, save_top_k=-1, filename="{step}", **checkpoints),
        max_epochs=epochs, enable_checkpointing=True, limit_val_batches=2, **settings,
    )  # fmt: skip
    data = StereoDigitsDataModule(batch_size=64, limit_train=300, mask_probability=0.1)
    trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    return {name: value.clone() for name, value in task.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return train(tmp_path_factory.mktemp("reference"))


def test_stopped_at_three_and_resumed(reference, tmp_path):
    stopped = train(tmp_path, 3)
    assert not equal(stopped, reference)
    assert equal(train(tmp_path / "on", resume=tmp_path / "step=15.ckpt"), reference)


@pytest.mark.parametrize("saving", SAVING)
def test_resumed_from_checkpoints_left_on_the_way(reference, tmp_path, saving):
    # Where and when a run saves, or validates, does not matter either.
    assert equal(train(tmp_path, saving=saving), reference)
    for step in SAVING[saving][2]:
        resumed = train(tmp_path / "on", 6, tmp_path / f"step={step}.ckpt", saving)
        assert equal(resumed, reference), f"step {step}"
