"""Stopping and going on gives the same bits as never stopping."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
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
            nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2))
            for _ in range(2)
        )
        self.head = nn.Linear(8, 10)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.head((self.pathways[0](left) + self.pathways[1](right)).mean((2, 3)))


def train(
    folder: Path, epochs: int, resume: Path | None = None, every_n_steps: int | None = None
) -> dict[str, torch.Tensor]:
    pl.seed_everything(7, verbose=False)
    task = ClassificationTask(
        Small(),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
        lr_scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    )
    checkpoint = ModelCheckpoint(
        folder, save_top_k=-1, filename="{epoch}-{step}", every_n_train_steps=every_n_steps,
        save_on_train_epoch_end=None if every_n_steps else True,
    )  # fmt: skip
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            DeficitWindow(GaussianNoise(views=[0]), onset=1, removal=5),
            DeficitWindow(Blur(views=[1]), onset=0, removal=min(epochs, 4)),
            checkpoint,
        ] if epochs >= 5 else [
            DeficitWindow(GaussianNoise(views=[0]), onset=1),
            DeficitWindow(Blur(views=[1]), onset=0),
            checkpoint,
        ],
    )  # fmt: skip
    data = StereoDigitsDataModule(batch_size=64, limit_train=300, mask_probability=0.1)
    trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    return {name: value.clone() for name, value in task.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(folder, 6)


def test_rerun_is_bit_identical(whole, tmp_path):
    assert equal(whole[1], train(tmp_path, 6))


def test_stopped_at_three_and_resumed(whole, tmp_path):
    stopped = train(tmp_path, 3)
    assert not equal(stopped, whole[1])
    assert equal(whole[1], train(tmp_path / "on", 6, tmp_path / "epoch=2-step=15.ckpt"))


@pytest.mark.parametrize("epoch", [0, 2, 4])
def test_resumed_from_a_checkpoint_left_on_the_way(whole, tmp_path, epoch):
    checkpoint = whole[0] / f"epoch={epoch}-step={5 * (epoch + 1)}.ckpt"
    assert equal(whole[1], train(tmp_path, 6, checkpoint))


@pytest.mark.parametrize("step", [2, 5, 12, 13, 25])
def test_resumed_in_the_middle_of_an_epoch(whole, tmp_path, step):
    train(tmp_path, 6, every_n_steps=1)
    checkpoint = tmp_path / f"epoch={(step - 1) // 5}-step={step}.ckpt"
    assert equal(whole[1], train(tmp_path / "on", 6, checkpoint))
