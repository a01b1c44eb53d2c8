"""Stopping and going on gives the same bits as never stopping."""

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import (
    GradientAccumulationScheduler,
    ModelCheckpoint,
    OnExceptionCheckpoint,
)
from pytorch_lightning.cli import ReduceLROnPlateau
from small_runs import quiet_trainer
from torch import nn

from critical_periods.callbacks import DeficitWindow, SubsetWindow
from critical_periods.core.errors import UserError
from critical_periods.data import DigitsDataModule, StereoDigitsDataModule
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


class Stop(pl.Callback):
    """Stops a run as Timer or EarlyStopping do, or with an error, after some steps."""

    def __init__(self, hook: str, steps: int, fails: bool) -> None:
        self.steps, self.fails = steps, fails
        setattr(self, hook, self.stop)

    def stop(self, trainer: Any, *args: Any, **settings: Any) -> None:
        if trainer.global_step < self.steps or trainer.sanity_checking:
            return
        if self.fails:
            raise KeyboardInterrupt
        trainer.should_stop = True


# Hooks in which a run stops.
STOPPING = ("on_train_batch_end", "on_train_epoch_end", "on_validation_end")
FAILING = (
    "on_train_epoch_start", "on_train_batch_start", "on_before_backward", "on_train_batch_end",
    "on_validation_start", "on_validation_batch_end", "on_train_epoch_end",
)  # fmt: skip
HALVES = {"val_check_interval": 2}
# What stops a run of 3 epochs of 4 batches: settings of the Trainer, a hook and steps.
STOPS: list[tuple[dict[str, Any], str, int]] = [
    *(({"max_steps": steps}, "", steps) for steps in (3, 4, 5)),
    *(({"max_steps": steps, "max_epochs": -1}, "", steps) for steps in (4, 5)),
    ({"max_steps": 6} | HALVES, "", 6),
    *((more, hook, steps) for hook in STOPPING for steps in (4, 6) for more in ({}, HALVES)),
]
FAILS = [
    (more, hook, steps)
    for hook in FAILING for more, steps in (({}, 5), (HALVES, 5), (HALVES, 7))
]  # fmt: skip


def go_on(
    folder: Path,
    resume: Path | None = None,
    callbacks: Sequence[pl.Callback] = (),
    follows: str | None = None,
    normed: bool = True,
    **settings: Any,
) -> dict[str, torch.Tensor]:
    """Trains for 3 epochs of 4 batches, the second one of 3."""
    pl.seed_everything(7, verbose=False)

    def plateau(optimizer: Any) -> Any:
        return ReduceLROnPlateau(optimizer, monitor=follows or "", patience=0, threshold=1e9)

    optimizer = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    fixed = functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)
    norm = nn.BatchNorm1d(8) if normed else nn.Tanh()
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 8), norm, nn.Dropout(), nn.Linear(8, 10))
    task = ClassificationTask(network, 10, optimizer, plateau if follows else fixed)
    windows = [SubsetWindow(0.75, 1, 2), DeficitWindow(GaussianNoise(), removal=2)]
    trainer = quiet_trainer(
        *windows, *callbacks, enable_checkpointing=True, default_root_dir=folder,
        **{"max_epochs": 3, "limit_val_batches": 2} | settings,
    )  # fmt: skip
    data = DigitsDataModule(batch_size=25, limit_train=100)
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        trainer.fit(task, data, ckpt_path=resume, weights_only=True)
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return go_on(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize(("settings", "hook", "steps"), STOPS)
def test_every_stop_is_exact(whole, tmp_path, settings, hook, steps):
    """Whatever stops a run, and whatever ends the one that goes on."""
    stop = [Stop(hook, steps, fails=False)] if hook else []
    assert not equal(go_on(tmp_path, None, stop, **settings), whole)
    (checkpoint,) = tmp_path.glob("checkpoints/*.ckpt")
    kept = {name: of for name, of in settings.items() if name in HALVES}
    # How a run stops does not matter to how the next one ends.
    for end in ({}, *([{"max_epochs": -1, "max_steps": 11}] if not hook else [])):
        assert equal(go_on(tmp_path / "on", checkpoint, **kept, **end), whole), end


@pytest.mark.parametrize(("settings", "hook", "steps"), FAILS)
def test_every_failure_loses_no_batch(whole, tmp_path, settings, hook, steps):
    # Batch norm has seen its batch then, and sees it again.
    if hook == "on_before_backward":
        whole, settings = go_on(tmp_path / "w", normed=False), settings | {"normed": False}
    saver = OnExceptionCheckpoint(tmp_path)
    saver.teardown = lambda *args: None  # type: ignore[method-assign] # it deletes the file
    go_on(tmp_path, None, [Stop(hook, steps, fails=True), saver], **settings)
    assert equal(go_on(tmp_path / "on", tmp_path / "on_exception.ckpt", **settings), whole)


SAVERS: dict[str, dict[str, Any]] = {
    "train": {"save_on_train_epoch_end": True},
    "validation": {"save_on_train_epoch_end": False},
    "batch": {"every_n_train_steps": 1},
}


@pytest.mark.parametrize(
    ("follows", "validate", "steps", "end", "lacks"),
    [
        *(("val/loss", 1.0, steps, "train", 0) for steps in (3, 4, 7)),
        ("val/loss", 1.0, 7, "validation", 0),
        ("val/loss", 1.0, 3, "batch", 0),
        ("val/loss", 2, 2, "batch", 0),
        *(("val/loss", 2, steps, "validation", 0) for steps in (2, 6)),
        ("train/loss", 1.0, 4, "train", 0),
        # Before the validation that the epoch ends with.
        ("val/loss", 1.0, 7, "batch", 3),
        ("val/loss", 2, 6, "batch", 2),
        # Before the mean of an epoch is known.
        ("train/loss", 1.0, 3, "train", 3),
        ("train/loss", 1.0, 4, "validation", 4),
        ("train/loss", 1.0, 4, "batch", 4),
    ],
)
def test_a_rate_that_follows_a_measure(tmp_path, follows, validate, steps, end, lacks):
    """Lightning steps its scheduler after the checkpoint was saved; what that lacks is said."""
    settings = {"follows": follows, "val_check_interval": validate}
    saver = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **SAVERS[end])
    go_on(tmp_path, None, [saver], max_steps=steps, **settings)
    words = (tmp_path / "on", tmp_path / f"step={steps}.ckpt")
    if lacks:
        with pytest.raises(UserError, match=f"batch {lacks} of an .* does not hold {follows} of "):
            go_on(*words, **settings)
    else:
        whole = go_on(tmp_path / "whole", **settings)
        assert equal(go_on(*words, **settings), whole)
        assert not equal(go_on(tmp_path / "other"), whole)


def test_gradients_that_are_accumulated_are_in_no_checkpoint(tmp_path):
    # Asked to stop as the third batch begins, it stops after that.
    settings = {"accumulate_grad_batches": 2}
    go_on(tmp_path, None, [Stop("on_train_batch_start", 1, False)], **settings)
    (checkpoint,) = tmp_path.glob("checkpoints/*.ckpt")
    with pytest.raises(UserError, match="of batch 3 of an epoch, between two steps of 2 batches"):
        go_on(tmp_path / "on", checkpoint, **settings)


@pytest.mark.parametrize("step", [1, 3, 4])
def test_accumulation_goes_on_as_its_schedule_says(tmp_path, step):
    """Lightning looks at the schedule as an epoch starts, and one that goes on does not start."""
    schedule = {0: 2, 1: 3}
    whole = go_on(tmp_path / "whole", None, [GradientAccumulationScheduler(schedule)])
    saver = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, every_n_train_steps=1)
    go_on(tmp_path, None, [GradientAccumulationScheduler(schedule), saver], max_steps=5)
    resumed = go_on(
        tmp_path / "on", tmp_path / f"step={step}.ckpt", [GradientAccumulationScheduler(schedule)]
    )
    assert equal(resumed, whole)
