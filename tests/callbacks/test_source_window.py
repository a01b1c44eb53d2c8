"""SourceWindow: another data set for a while, to the bit, and refused where classes differ."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import quiet_trainer
from small_study import plan_of, write_study
from torch import Tensor, nn
from torch.optim import lr_scheduler

from critical_periods.callbacks import (
    BiasReset,
    GradualChange,
    RateChange,
    SourceWindow,
    SubsetWindow,
)
from critical_periods.core.errors import UserError
from critical_periods.data import DigitsDataModule, FacesDataModule, MNISTDataModule
from critical_periods.tasks import ClassificationTask

# 3 batches an epoch on the target, 5 on the source.
TARGET = {"size": 24, "samples": 60, "batch_size": 20, "val_split": 14}
SOURCE = {"size": 24, "samples": 75, "batch_size": 15, "database": "wild"}


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


class Diary(pytorch_lightning.Callback):
    """The samples of each step of training."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, list[int], Tensor]] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
        self.steps.append((trainer.current_epoch, batch.index.tolist(), batch.views))


def train(
    *callbacks: Any, epochs: int = 4, data: Any = None, resume: Path | None = None, **settings: Any
) -> tuple[dict[str, Tensor], Diary]:
    pytorch_lightning.seed_everything(7, verbose=False)
    network, diary = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(576, 7)), Diary()
    settings["enable_checkpointing"] = any(isinstance(one, ModelCheckpoint) for one in callbacks)
    trainer = quiet_trainer(*callbacks, diary, max_epochs=epochs, **settings)
    task = ClassificationTask(network, num_classes=7, optimizer=sgd)
    target = FacesDataModule(**TARGET) if data is None else data
    trainer.fit(task, target, ckpt_path=resume, weights_only=True)
    assert trainer.reload_dataloaders_every_n_epochs == 0 and getattr(target, "source", 0) is None
    return {name: value.clone() for name, value in task.state_dict().items()}, diary


def weights(state: dict[str, Tensor]) -> Tensor:
    return state["network.2.weight"]


def window(onset: int = 0, removal: int | None = None, **settings: Any) -> SourceWindow:
    return SourceWindow(FacesDataModule(**SOURCE), onset, removal, **settings)


def test_epochs_of_the_window_are_those_of_a_run_on_the_source():
    alone, on_source = train(data=FacesDataModule(**SOURCE))
    whole, _ = train(window())
    assert torch.equal(weights(whole), weights(alone))
    _, on_target = train()
    _, diary = train(window(1, 3))
    expected = [
        step
        for epoch, of in enumerate((on_target, on_source, on_source, on_target))
        for step in of.steps
        if step[0] == epoch
    ]
    assert [step[:2] for step in diary.steps] == [step[:2] for step in expected]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(diary.steps, expected, strict=True))
    # A subset is one of the target alone.
    _, both = train(window(1, 2), SubsetWindow(0.5))
    assert [sum(step[0] == epoch for step in both.steps) for epoch in range(4)] == [2, 5, 2, 2]


def test_it_is_resumed_to_the_bit_from_every_step(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    expected, diary = train(window(1, 3), saver)
    assert len(diary.steps) == 16
    # Before, at and after the window's ends, and within each epoch.
    for step in (2, 3, 4, 7, 8, 12, 13, 14):
        found, rest = train(window(1, 3), resume=tmp_path / f"step={step}.ckpt")
        assert torch.equal(weights(found), weights(expected))
        assert [one[:2] for one in rest.steps] == [one[:2] for one in diary.steps[step:]]


def test_a_mapping_says_the_class_of_the_target():
    names = FacesDataModule().class_names
    swapped = {"anger": "fear", "fear": "anger"}
    targets: list[Tensor] = []

    class Targets(pytorch_lightning.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
            targets.append(batch.target.clone())

    train(window(mapping=swapped), Targets(), epochs=1)
    mapped = torch.cat(targets)
    targets.clear()
    train(window(), Targets(), epochs=1)
    own = torch.cat(targets)
    number = {name: place for place, name in enumerate(names)}
    expected = torch.tensor([number[swapped.get(names[one], names[one])] for one in own.tolist()])
    assert torch.equal(mapped, expected) and not torch.equal(mapped, own)


class Renamed(FacesDataModule):
    def __init__(self, names: list[str], **settings: Any) -> None:
        super().__init__(**settings)
        self.class_names = names


NAMES = list(FacesDataModule().class_names)
GREY = {"size": 24, "samples": 75}


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (Renamed(["rage", *NAMES[1:]], **GREY), {}, "of SourceWindow has the class 'rage'"),
        (Renamed(NAMES[::-1], **GREY), {}, "are in the order surprise, .* order them alike"),
        (FacesDataModule(**GREY), {"mapping": {"anger": "ire"}}, "names 'ire', no class of the t"),
        (FacesDataModule(**GREY), {"mapping": {"ire": "anger"}}, "names 'ire', no class of the s"),
        (DigitsDataModule(), {}, "of SourceWindow has the class '0' and the target has not"),
        (FacesDataModule(samples=75), {}, r"shape \(1, 1, 48, 48\) .* \(1, 1, 24, 24\)"),
        (MNISTDataModule("nowhere"), {}, "nowhere"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_sentence_before_training(data, settings, message):
    with pytest.raises(UserError) as caught:
        train(SourceWindow(data, **settings))
    assert re.search(message, str(caught.value)), caught.value


def test_other_mistakes():
    with pytest.raises(UserError, match="unit='step' of SourceWindow"):
        window(unit="step")
    with pytest.raises(UserError, match="not from Linear"):
        SourceWindow(nn.Linear(1, 1))
    with pytest.raises(UserError, match="two windows are open at once"):
        train(window(0, 2), window(1))
    # A window of no epochs is never open.
    train(window(0, 2), window(2), window(0, 0), window(1, 1))
    with pytest.raises(
        UserError, match="the class 'surprise' and the source of SourceWindow has not"
    ):
        train(SourceWindow(Few(**GREY)))


class Few(FacesDataModule):
    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        self.class_names = NAMES[:-1]


RUN = {
    "model.init_args.network": {
        "class_path": "AllCNN", "init_args": {"width": 2, "in_channels": 1, "num_classes": 7}
    },
    "model.init_args.num_classes": 7,
    "data": {"class_path": "FacesDataModule", "init_args": TARGET},
    "trainer.callbacks": [],
}  # fmt: skip


def test_a_study_names_segments_by_the_source_and_has_both_controls(tmp_path):
    def planned(**settings: Any) -> Any:
        data = {"class_path": "FacesDataModule", "init_args": SOURCE | settings}
        study = {
            "deficit": None, "windows": {"removal": [2, 3], "epochs_after": 2},
            "window": {"class_path": "SourceWindow", "init_args": {"data": data}},
        }  # fmt: skip
        return plan_of(write_study(tmp_path, study, RUN))

    one, same, seeded = planned(), planned(device_resident=True), planned(seed=3)
    # As many epochs, and as many on the target.
    windows = [run.window for run in one.runs]
    assert windows == [(0, 2, 4), (0, 3, 5), (0, 0, 4), (0, 0, 5), (0, 0, 2)]
    assert one.segments.keys() == same.segments.keys()
    shared = one.segments.keys() & seeded.segments.keys()
    assert {one.segments[name].window for name in shared} == {(0, 0)}


# The three remedies of Zilly et al.


def test_the_target_comes_in_gradually_and_resumes_to_the_bit(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    expected, diary = train(window(0, 1), GradualChange(1, 3), saver)
    _, plain = train()
    shares = []
    for steps, others in (
        (diary.steps[5 + n : 8 + n], plain.steps[3 + n : 6 + n]) for n in (0, 3, 6)
    ):
        same = [
            torch.equal(one, other)
            for mine, theirs in zip(steps, others, strict=True)
            for one, other in zip(mine[2], theirs[2], strict=True)
        ]
        shares.append(sum(same) / len(same))
    # Of 46 samples a third, two thirds and all are the target's, within three deviations.
    assert shares == pytest.approx([1 / 3, 2 / 3, 1], abs=0.21) and shares[2] == 1
    for step in (4, 5, 6, 9, 12):
        again = window(0, 1), GradualChange(1, 3)
        found, _ = train(*again, resume=tmp_path / f"step={step}.ckpt")
        assert torch.equal(weights(found), weights(expected))
    alone, _ = train(window(0, 0), GradualChange(1, 3))
    without, _ = train()
    assert torch.equal(weights(alone), weights(without))
    with pytest.raises(UserError, match="has no SourceWindow"):
        train(GradualChange(1, 3))
    with pytest.raises(UserError, match="removal=None of GradualChange must be"):
        GradualChange(1)


SCHEDULERS: dict[str, Any] = {
    "exponential": (lambda o: lr_scheduler.ExponentialLR(o, 0.8), lambda t: 0.8**t),
    "lambda": (lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)), lambda t: 1 / (1 + t)),
    "cosine": (
        lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
        lambda t: (1 + math.cos(math.pi * t / 6)) / 2,
    ),
    "none": (None, lambda t: 1.0),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_rate_changes_once_and_its_schedule_goes_on(name):
    scheduler, factor = SCHEDULERS[name]
    rates = []

    class Rates(pytorch_lightning.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    network = nn.Sequential(nn.Flatten(), nn.Linear(576, 7))
    task = ClassificationTask(network, 7, sgd, scheduler)
    data = FacesDataModule(**TARGET | {"batch_size": 60})
    quiet_trainer(RateChange(3.0, onset=2), Rates(), max_epochs=5).fit(task, data)
    expected = [0.05 * factor(epoch) * (1 if epoch < 2 else 3) for epoch in range(5)]
    assert rates == pytest.approx(expected, rel=1e-9)
    with pytest.raises(UserError, match="factor=0 of RateChange must be above 0"):
        RateChange(0)


def test_every_bias_begins_anew():
    found = []

    class Biases(pytorch_lightning.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
            found.append(module.network[2].bias.clone())

    train(BiasReset(0.25, onset=1), Biases(), epochs=2)
    assert found[3].eq(0.25).all() and not found[2].eq(0.25).any() and not found[4].eq(0.25).any()
    network = nn.Sequential(nn.Flatten(), nn.Linear(576, 7, bias=False))
    with pytest.raises(UserError, match="BiasReset finds no bias in Sequential"):
        quiet_trainer(BiasReset()).fit(
            ClassificationTask(network, 7, sgd), FacesDataModule(**TARGET)
        )
