"""Windows of regularisation and of subsets, restarts of the rate, and deficits in validation."""

import copy
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import Untrained, quiet_trainer
from timm.layers import DropPath
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.callbacks import (
    DeficitWindow,
    LearningRateRestart,
    RegularizationWindow,
    SubsetWindow,
)
from critical_periods.callbacks.windows.regularization_window import Regularizer
from critical_periods.callbacks.windows.window import Window
from critical_periods.core.errors import UserError
from critical_periods.data import StereoDigitsDataModule
from critical_periods.deficits import Deficit, GaussianNoise, LabelPermutation, Occlusion
from critical_periods.tasks import ClassificationTask

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")


# Runs on this package's data: 100 images, 5 batches an epoch; on 40 % of them, 2 batches.


class Small(nn.Module):
    """One pathway for each eye, with dropout of every kind."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        self.eyes = nn.ModuleList(nn.Conv2d(1, 4, 3, stride=2) for _ in range(2))
        self.rest = nn.Sequential(
            nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout2d(dropout), nn.Flatten(), nn.Linear(196, 16)
        )
        self.path = DropPath(dropout)
        self.head = nn.Linear(16, 10)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        features = self.rest(self.eyes[0](left) + self.eyes[1](right))
        return self.head(features + self.path(features.square()))


class Diary(pytorch_lightning.Callback):
    """What each step of training was like."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.validated: list[int] = []
        self.batches: list[tuple[float, Any]] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.batches.append((trainer.num_training_batches, trainer.val_check_batch))

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
        optimizer, network = trainer.optimizers[0], module.network
        self.steps.append({
            "epoch": trainer.current_epoch,
            "batch": i,
            "index": batch.index.tolist(),
            "decay": [group["weight_decay"] for group in optimizer.param_groups],
            "rate": [group["lr"] for group in optimizer.param_groups],
            "dropout": (network.rest[2].p, network.path.drop_prob),
            "augment": trainer.datamodule.augment,
        })  # fmt: skip

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self.validated.append(trainer.current_epoch)

    def epochs(self, key: str) -> dict[int, Any]:
        """What all steps of an epoch agree on."""
        found: dict[int, Any] = {}
        for step in self.steps:
            assert found.setdefault(step["epoch"], step[key]) == step[key]
        return found


def sgd(parameters: Any) -> torch.optim.Optimizer:
    first, *others = list(parameters)
    groups = [{"params": [first], "weight_decay": 0.1}, {"params": others}]
    return torch.optim.SGD(groups, lr=0.05, momentum=0.9, weight_decay=0.02)


def exponential(optimizer: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.ExponentialLR(optimizer, 0.8)


def train(
    *callbacks: Any,
    epochs: int = 5,
    resume: Path | None = None,
    optimizer: Callable[..., Any] = sgd,
    dropout: float = 0.3,
    data: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[dict[str, Tensor], Diary, Any]:
    pytorch_lightning.seed_everything(7, verbose=False)
    network, diary = Small(dropout), Diary()
    task = ClassificationTask(network, optimizer=optimizer, lr_scheduler=exponential)
    settings["enable_checkpointing"] = any(isinstance(one, ModelCheckpoint) for one in callbacks)
    trainer = quiet_trainer(*callbacks, diary, max_epochs=epochs, **settings)
    chosen = {"batch_size": 20, "limit_train": 100, "val_split": 100, "width": 16} | (data or {})
    trainer.fit(task, StereoDigitsDataModule(**chosen), ckpt_path=resume, weights_only=True)
    return {name: value.clone() for name, value in task.state_dict().items()}, diary, trainer


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def plain() -> tuple[dict[str, Tensor], Diary, Any]:
    return train()


# Everything that a run can be stopped within, at its borders and between them.

SETS: dict[str, Callable[[], list[Any]]] = {
    "subset": lambda: [SubsetWindow(0.4, 1, 3)],
    "subset from the start": lambda: [SubsetWindow(0.4, 0, 2)],
    **{kind: lambda k=kind: [RegularizationWindow(k, 1, 3)] for kind in get_args(Regularizer)},
    "restart": lambda: [LearningRateRestart(2, every_n_epochs=2)],
    "together": lambda: [
        SubsetWindow(0.4, 1, 3),
        SubsetWindow(0.8, 2, 4),
        RegularizationWindow("weight_decay", 0, 2),
        RegularizationWindow("augmentation", 1, 3),
        RegularizationWindow("dropout", 3),
        DeficitWindow(GaussianNoise(views=[0]), 1, 2),
        LearningRateRestart(1, every_n_epochs=2),
    ],
}


@pytest.mark.parametrize("name", SETS)
def test_resumed_anywhere_to_the_bit(plain, tmp_path, name):
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    whole, diary, _ = train(*SETS[name](), saver)
    assert not equal(whole, plain[0])
    last = len(diary.steps)
    ends = [n for n, step in enumerate(diary.steps) if step["batch"] == 0][1:]
    # The last batch of every epoch, and every batch but the first of those around them.
    wanted = {*ends, *(end + 1 for end in ends), ends[1] + 2, last - 1}
    few = "subset" not in name and name != "together"
    for step in sorted({*ends[:3], ends[1] + 2} if few else wanted):
        resumed, rest, trainer = train(*SETS[name](), resume=tmp_path / f"step={step}.ckpt")
        assert equal(resumed, whole), f"step {step}"
        assert rest.steps == diary.steps[step:], f"step {step}"
        assert trainer.global_step == last


@pytest.mark.parametrize(
    ("saving", "settings"),
    [
        ({"save_on_train_epoch_end": True}, {}),
        ({"save_on_train_epoch_end": False}, {}),
        ({}, {"val_check_interval": 2}),
    ],
)
def test_resumed_from_checkpoints_of_every_kind(tmp_path, saving, settings):
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, **saving)
    whole, diary, _ = train(*SETS["together"](), saver, **settings)
    checkpoints = sorted(tmp_path.glob("step=*.ckpt"))
    assert len(checkpoints) >= 5
    for checkpoint in checkpoints:
        step = int(checkpoint.stem.partition("=")[2])
        resumed, rest, _ = train(*SETS["together"](), resume=checkpoint, **settings)
        assert equal(resumed, whole), checkpoint.name
        assert rest.steps == diary.steps[step:]


def test_a_shorter_run_goes_on_in_another_window(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    train(SubsetWindow(0.4, 0, 2), saver, epochs=2)
    branch, _, _ = train(SubsetWindow(0.4, 0, 3), resume=tmp_path / "epoch=1.ckpt", epochs=4)
    whole, _, _ = train(SubsetWindow(0.4, 0, 3), epochs=4)
    assert equal(branch, whole)


# Windows without an effect have none, and others the one that a setting has.


@pytest.mark.parametrize(
    "callbacks",
    [
        [SubsetWindow(0.4, 2, 2)],
        [RegularizationWindow("weight_decay"), RegularizationWindow("augmentation", 0, 5)],
        [RegularizationWindow("dropout", 0, 2), RegularizationWindow("dropout", 2)],
        [LearningRateRestart(0)],
        [LearningRateRestart(), DeficitWindow(Occlusion(), 3, 3)],
        # Its removal comes after the last epoch.
        [LearningRateRestart(), RegularizationWindow("dropout", 0, 5)],
    ],
)
def test_without_an_effect(plain, callbacks):
    weights, diary, _ = train(*callbacks)
    assert equal(weights, plain[0]) and diary.steps == plain[1].steps


def undecayed(parameters: Any) -> torch.optim.Optimizer:
    optimizer = sgd(parameters)
    for group in optimizer.param_groups:
        group["weight_decay"] = 0
    return optimizer


@pytest.mark.parametrize(
    ("callback", "setting", "data"),
    [
        (RegularizationWindow("weight_decay", 3, 3), {"optimizer": undecayed}, {}),
        (RegularizationWindow("augmentation", 0, 0), {"data": {"augment": "none"}}, {}),
        (RegularizationWindow("dropout", 1, 1), {"dropout": 0.0}, {}),
        (SubsetWindow(40 / 900), {"data": {"limit_train": 40}}, {"limit_train": None}),
    ],
)
def test_the_same_as_a_setting(callback, setting, data):
    assert equal(train(callback, epochs=3, data=data)[0], train(epochs=3, **setting)[0])


# Regularisation.


def test_regularisers_act_in_their_epochs_alone(plain):
    _, diary, trainer = train(
        RegularizationWindow("weight_decay", 1, 3),
        RegularizationWindow("augmentation", 0, 2),
        RegularizationWindow("dropout", 1, 2),
        RegularizationWindow("dropout", 3),
    )
    on, off = [0.1, 0.02], [0.0, 0.0]
    assert diary.epochs("decay") == {0: off, 1: on, 2: on, 3: off, 4: off}
    assert diary.epochs("augment") == dict(enumerate(["shared"] * 2 + ["none"] * 3))
    assert diary.epochs("dropout") == {
        e: (0.3, 0.3) if e in (1, 3, 4) else (0, 0) for e in range(5)
    }
    # Afterwards everything is as it was configured.
    assert [group["weight_decay"] for group in trainer.optimizers[0].param_groups] == on
    assert trainer.datamodule.augment == "shared"
    network = trainer.lightning_module.network
    assert (network.rest[2].p, network.path.drop_prob) == (0.3, 0.3)


class Probe(nn.Module):
    """Every layer that drops something, and one that does not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Dropout(0.1), nn.Dropout3d(0.2), nn.AlphaDropout(0.3), nn.FeatureAlphaDropout(0.4)]
        )
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.5)
        self.path, self.idle = DropPath(0.6), nn.Linear(2, 1)
        # timm's networks drop by a number of their own before the classifier.
        self.idle.drop_rate = 0.7

    def rates(self) -> list[float]:
        others = [self.attention.dropout, self.path.drop_prob, self.idle.drop_rate]
        return [one.p for one in self.layers] + others


def third_party(framework: Any, schedule: Any = None) -> Any:
    """A module of somebody's, with two groups of parameters, that keeps what it saw."""

    class ThirdParty(framework.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.probe = Probe()
            self.seen: list[dict[str, Any]] = []
            self.validated: list[tuple[int, Tensor]] = []

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            groups = self.trainer.optimizers[0].param_groups
            names = ("lr", "weight_decay", "momentum")
            self.seen.append({name: [group[name] for group in groups] for name in names})
            self.seen[-1] |= {"epoch": self.current_epoch, "dropout": self.probe.rates()}
            self.log("loss", 1.0)
            return self.probe.idle(batch[0][:, 0, 0, :2]).square().mean()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.validated.append((batch_idx, batch))

        def configure_optimizers(self) -> Any:
            weight, bias = self.probe.idle.parameters()
            groups = [{"params": [weight], "lr": 0.2}, {"params": [bias], "weight_decay": 0.3}]
            optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
            return optimizer if schedule is None else schedule(optimizer)

    return ThirdParty()


def loader() -> DataLoader:
    images = torch.rand(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(images, torch.arange(8)), batch_size=2)


def fit(framework: Any, module: Any, *callbacks: Any, epochs: int = 6, **settings: Any) -> Any:
    validating = settings.pop("val_dataloaders", None)
    trainer = quiet_trainer(*callbacks, framework=framework, max_epochs=epochs, **settings)
    trainer.fit(module, loader(), validating)
    return trainer


def test_third_parties_regularisers(framework):
    module = third_party(framework)
    kinds: dict[Regularizer, int] = {"weight_decay": 0, "dropout": 1}
    windows = [RegularizationWindow(kind, onset, onset + 2) for kind, onset in kinds.items()]
    trainer = fit(framework, module, *windows, epochs=4)
    configured = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    for seen in module.seen:
        assert seen["weight_decay"] == ([0, 0.3] if seen["epoch"] < 2 else [0, 0])
        assert seen["dropout"] == (configured if seen["epoch"] in (1, 2) else [0] * 7)
    assert module.probe.rates() == configured
    assert trainer.optimizers[0].param_groups[1]["weight_decay"] == 0.3
    assert trainer.callback_metrics["regularization/active"] == 0


def test_an_exception_puts_regularisers_and_data_back():
    class Enough(pytorch_lightning.Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            if trainer.current_epoch == 1:
                raise RuntimeError("enough")

    pytorch_lightning.seed_everything(7, verbose=False)
    network = Small()
    task = ClassificationTask(network, optimizer=sgd)
    data = StereoDigitsDataModule(batch_size=20, limit_train=100, width=16)
    windows = [RegularizationWindow(kind, removal=1) for kind in get_args(Regularizer)]
    callbacks = [*windows, SubsetWindow(0.4), Enough()]
    trainer = quiet_trainer(*callbacks, max_epochs=3, limit_val_batches=0)
    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(task, data)
    assert [group["weight_decay"] for group in trainer.optimizers[0].param_groups] == [0.1, 0.02]
    assert data.augment == "shared" and network.rest[2].p == network.path.drop_prob == 0.3
    assert len(data.train_dataloader()) == 5
    assert trainer.reload_dataloaders_every_n_epochs == 0


# Subsets.


def test_subsets_are_fixed_and_balanced():
    _, diary, trainer = train(SubsetWindow(0.4, 1, 4), SubsetWindow(0.2, 2, 3), epochs=6)
    data, indices = trainer.datamodule, defaultdict[int, list[int]](list)
    for step in diary.steps:
        indices[step["epoch"]] += step["index"]
    everything = set(data.splits["train"][1].tolist())
    assert len(everything) == 100
    for epoch, number in enumerate([100, 40, 20, 40, 100, 100]):
        assert len(indices[epoch]) == len(set(indices[epoch])) == number
        assert set(indices[epoch]) <= everything
        classes = data._images["train"].target[indices[epoch]].bincount(minlength=10)
        if number < 100:
            assert classes.tolist() == [number // 10] * 10
    assert set(indices[2]) < set(indices[1]) == set(indices[3])
    assert indices[1] != indices[3] and indices[4] != indices[5]
    assert [batches for batches, _ in diary.batches] == [5, 2, 1, 2, 5, 5]
    assert [step["batch"] for step in diary.steps if step["epoch"] in (2, 3)] == [0, 0, 1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"check_val_every_n_epoch": 2}, [1, 3]),
        ({"val_check_interval": 0.5}, [0, 0, 1, 1, 2, 2, 3, 3]),
        ({"val_check_interval": 2}, [0, 0, 1, 2, 3, 3]),
        ({"limit_train_batches": 4}, [0, 1, 2, 3]),
        ({"limit_train_batches": 0.5}, [0, 1, 2, 3]),
        ({}, [0, 1, 2, 3]),
        ({"accumulate_grad_batches": 2}, [0, 1, 2, 3]),
        ({"reload_dataloaders_every_n_epochs": 3}, [0, 1, 2, 3]),
    ],
)
def test_validation_and_steps_of_narrow_epochs(settings, expected):
    _, diary, trainer = train(SubsetWindow(0.4, 1, 3), epochs=4, **settings)
    assert diary.validated == expected
    limit = settings.get("limit_train_batches", 5)
    full, narrow = {5: (5, 2), 4: (4, 2), 0.5: (2, 1)}[limit]
    assert [batches for batches, _ in diary.batches] == [full, narrow, narrow, full]
    steps = 2 * (full + narrow) if "accumulate_grad_batches" not in settings else 3 + 1 + 1 + 3
    assert trainer.global_step == steps
    asked = settings.get("reload_dataloaders_every_n_epochs", 0)
    assert trainer.reload_dataloaders_every_n_epochs == asked


def test_active_is_logged_for_windows_of_each_kind(tmp_path):
    logger = pytorch_lightning.loggers.CSVLogger(tmp_path, name="", version="")
    train(
        SubsetWindow(0.4, 1, 2),
        SubsetWindow(0.5, 4),
        DeficitWindow(Occlusion(), 2, 3),
        RegularizationWindow("weight_decay", 3, 4),
        RegularizationWindow("augmentation", 3),
        logger=logger,
    )
    rows = pd.read_csv(tmp_path / "metrics.csv").dropna(subset="deficit/active")
    assert rows["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert rows["deficit/active"].tolist() == [0, 1, 1, 0, 1]
    assert rows["regularization/active"].tolist() == [0, 0, 0, 1, 1]


# Restarts of the rate.

LINEAR = [1.0, 0.9, 0.7, 0.4, 0.35, 0.2, 0.1]
SCHEDULES: dict[str, tuple[Callable[[Any], Any], Callable[[int], float]]] = {
    "exponential": (lambda o: lr_scheduler.ExponentialLR(o, 0.8), lambda t: 0.8**t),
    "steps": (lambda o: lr_scheduler.StepLR(o, 2), lambda t: 0.1 ** (t // 2)),
    "cosine": (
        lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
        lambda t: (1 + math.cos(math.pi * t / 6)) / 2,
    ),
    "lambda": (lambda o: lr_scheduler.LambdaLR(o, lambda t: LINEAR[t]), lambda t: LINEAR[t]),
    "warm-up, then steps": (
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 0.25, total_iters=3), lr_scheduler.StepLR(o, 2, gamma=0.5)],
            [3],
        ),
        lambda t: 0.25 + 0.25 * t if t < 3 else 0.5 ** ((t - 3) // 2),
    ),
    "chain": (
        lambda o: lr_scheduler.ChainedScheduler(
            [lr_scheduler.ExponentialLR(o, 0.8), lr_scheduler.ConstantLR(o, 0.5, 2)]
        ),
        lambda t: 0.8**t * (0.5 if t < 2 else 1),
    ),
}


def scheduled_by(schedule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda optimizer: {"optimizer": optimizer, "lr_scheduler": schedule(optimizer)}


def rates(module: Any) -> list[list[float]]:
    found = {}
    for seen in module.seen:
        assert found.setdefault(seen["epoch"], seen["lr"]) == seen["lr"]
    return [found[epoch] for epoch in range(len(found))]


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule_starts_over(name):
    framework, (schedule, factor) = pytorch_lightning, SCHEDULES[name]
    alone, restarted, cycled, both = (
        third_party(framework, scheduled_by(schedule)) for _ in range(4)
    )
    fit(framework, alone)
    fit(framework, restarted, LearningRateRestart(4), epochs=10)
    fit(framework, cycled, LearningRateRestart(2, every_n_epochs=3), epochs=9)
    # The later of two removals; a window that never opens and one without an end have none.
    windows = Window(0, 2), RegularizationWindow("dropout", 1, 3), Window(1), Window(5, 5)
    fit(framework, both, *windows, LearningRateRestart(), epochs=8)
    once = rates(alone)
    for epoch, (first, second) in enumerate(once):
        assert first == pytest.approx(0.2 * factor(epoch), rel=1e-12)
        assert second == pytest.approx(0.1 * factor(epoch), rel=1e-12)
    # To the bit, as the scheduler's own arithmetic starts over too.
    assert rates(restarted) == once[:4] + once
    assert rates(cycled) == once[:2] + once[:3] * 2 + once[:1]
    assert rates(both) == once[:3] + once[:5]


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before")
def test_restarts_go_on_from_a_checkpoint(framework, tmp_path):
    def run(*callbacks: Any, **checkpoint: Any) -> list[Any]:
        module = third_party(framework, scheduled_by(SCHEDULES["cosine"][0]))
        settings = {"max_epochs": 6, "enable_checkpointing": bool(callbacks)}
        callbacks = LearningRateRestart(1, every_n_epochs=2), *callbacks
        trainer = quiet_trainer(*callbacks, framework=framework, **settings)
        trainer.fit(module, loader(), **checkpoint)
        return [seen["lr"] for seen in module.seen]

    saver = {"filename": "{step}", "save_top_k": -1, "every_n_train_steps": 1}
    whole = run(framework.callbacks.ModelCheckpoint(tmp_path, **saver))
    for step in range(1, 24):  # 4 an epoch
        assert run(ckpt_path=tmp_path / f"step={step}.ckpt", weights_only=True) == whole[step:]


def test_schedules_by_batch_and_by_metric_start_over(framework):
    def by_batch(optimizer: Any) -> Any:
        scheduler = lr_scheduler.OneCycleLR(optimizer, [0.2, 0.1], total_steps=40)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def by_metric(optimizer: Any) -> Any:
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "loss"}}

    module = third_party(framework, by_batch)
    fit(framework, module, LearningRateRestart(3))
    values = [(seen["lr"], seen["momentum"]) for seen in module.seen]
    assert len({lr[0] for lr, _ in values}) > 10 and values[12:] == values[:12]
    module = third_party(framework, by_metric)
    fit(framework, module, LearningRateRestart(3))
    factors = [lr[0] / 0.2 for lr in rates(module)]
    assert factors == pytest.approx([1, 1, 0.1, 1, 1, 0.1])


def test_momentum_stays_at_a_restart():
    buffers = []

    class Before(pytorch_lightning.Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            buffers.append(copy.deepcopy(trainer.optimizers[0].state_dict()["state"]))

    _, diary, _ = train(Before(), LearningRateRestart(3), Before(), epochs=4)
    assert diary.epochs("rate")[3] == diary.epochs("rate")[0]
    before, after = buffers[6:]
    assert before and all(
        torch.equal(before[n]["momentum_buffer"], after[n]["momentum_buffer"]) for n in before
    )


# Deficits in validation.


class Plus(Deficit):
    """x + 1."""

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return images + 1


def test_third_parties_validation_has_the_deficit_on_request(framework):
    module = third_party(framework)
    windows = DeficitWindow(Plus(), 1, 3, validate=True), DeficitWindow(Occlusion(), 2, 4)
    fit(framework, module, *windows, epochs=5, val_dataloaders=loader(), num_sanity_val_steps=2)
    assert len(module.validated) == 2 + 5 * 4
    clean = [batch[0] for batch in loader()]
    for place, (number, batch) in enumerate(module.validated):
        epoch = (place - 2) // 4
        expected = clean[number] + 1 if epoch in (1, 2) else clean[number]
        assert torch.equal(batch[0], expected)
    assert not {"training_step", "validation_step"} & set(vars(module))
    # And it is left alone where no window asks.
    module = third_party(framework)
    fit(framework, module, windows[1], epochs=5, val_dataloaders=loader())
    assert all(torch.equal(batch[0], clean[number]) for number, batch in module.validated)


def test_noise_in_validation_is_one_and_the_same(framework):
    module, other = third_party(framework), third_party(framework)
    window = DeficitWindow(GaussianNoise(), validate=True)
    settings = {"epochs": 2, "val_dataloaders": loader()}
    fit(framework, module, window, **settings)
    fit(framework, other, DeficitWindow(GaussianNoise(), 0, 1), **settings)
    draws = [batch[0] for _, batch in module.validated]
    assert all(torch.equal(a, b) for a, b in zip(draws[:4], draws[4:], strict=True))
    assert len({float(draw.flatten()[0]) for draw in draws}) == 4
    # Training goes on as if nobody had looked.
    assert not torch.equal(module.probe.idle.weight, other.probe.idle.weight)
    other = third_party(framework)
    fit(framework, other, DeficitWindow(GaussianNoise()), **settings)
    assert torch.equal(module.probe.idle.weight, other.probe.idle.weight)


def test_a_slots_validation_has_the_deficit_on_request(plain):
    seen: dict[str, list[Tensor]] = {"val": [], "measured": [], "sanity": []}

    class Spy(pytorch_lightning.Callback):
        def on_validation_batch_start(self, trainer: Any, module: Any, batch: Any, *_: Any) -> None:
            place = "sanity" if trainer.sanity_checking else "val"
            seen[place].append(batch.target)

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            data = trainer.datamodule
            for draw in data.measurement_loader("val"):
                images = data.transfer_batch_to_device(draw, torch.device("cpu"), 0)
                seen["measured"].append(data.on_after_batch_transfer(images, 0).target)

    permutation = LabelPermutation(seed=3)
    window = DeficitWindow(permutation, 1, 2, validate=True)
    _, _, trainer = train(window, Spy(), epochs=3, num_sanity_val_steps=2, data={"batch_size": 100})
    (first, second, third), clean = seen["val"], seen["sanity"][0]
    assert torch.equal(first, clean) and torch.equal(third, clean)
    assert torch.equal(second, permutation.permutation[clean]) and not torch.equal(second, clean)
    assert all(torch.equal(one.sort().values, clean.sort().values) for one in seen["measured"])
    data = trainer.datamodule
    assert not list(data.deficits.active) and not list(data.deficits.in_validation)
    # Validation changes no bit of training, and asking for it changes none of a clean run's.
    noisy = [train(DeficitWindow(GaussianNoise(), 1, 2, validate=v), epochs=3) for v in (0, 1)]
    assert equal(
        *({n: w for n, w in run[0].items() if "val_" not in n} for run in noisy)
    ) and not equal(noisy[0][0], plain[0])


# What is wrong is said before anything is trained.


def wrong(*callbacks: Any, **settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        train(*callbacks, Untrained(), **settings)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SubsetWindow(0.0), "share=0.0 of SubsetWindow must lie between 0 and 1."),
        (lambda: SubsetWindow(1), "share=1 of SubsetWindow must lie between 0 and 1."),
        (lambda: SubsetWindow(0.5, -1), "onset=-1 of SubsetWindow must not be negative."),
        (
            lambda: SubsetWindow(0.5, 3, 2),
            "removal=2 of SubsetWindow lies before its onset=3; choose a removal of at least 3, or "
            "null for a deficit to the end.",
        ),
        (
            lambda: RegularizationWindow("dropout", 3, 2),
            "removal=2 of RegularizationWindow lies before its onset=3; choose a removal of at "
            "least 3, or null for a regularization to the end.",
        ),
        (
            lambda: RegularizationWindow("weight_decoy"),  # type: ignore[arg-type]
            "regularizer='weight_decoy' of RegularizationWindow is unknown; did you mean "
            "'weight_decay'?",
        ),
        (lambda: LearningRateRestart(-1), "epoch=-1 of LearningRateRestart must not be negative."),
        (
            lambda: LearningRateRestart(every_n_epochs=0),
            "every_n_epochs=0 of LearningRateRestart must be at least 1.",
        ),
    ],
)
def test_settings_that_make_no_sense(make, sentence):
    with pytest.raises(UserError) as caught:
        make()
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("callback", "sentence"),
    [
        (
            RegularizationWindow("dropout", 5),
            "the window of RegularizationWindow (onset=5, removal=None) reaches beyond the last "
            "epoch of training: trainer.max_epochs=5.",
        ),
        (
            LearningRateRestart(5),
            "epoch=5 of LearningRateRestart lies beyond the last epoch of training: "
            "trainer.max_epochs=5.",
        ),
    ],
)
def test_epochs_beyond_the_last(callback, sentence):
    assert wrong(callback) == sentence

    class Part(pytorch_lightning.Callback):
        run_epochs = 6

    # A part of a longer run, a last epoch that the window just reaches, a trial.
    train(callback, Part(), limit_train_batches=1, limit_val_batches=0)
    train(callback, fast_dev_run=True)


def test_nothing_to_switch(framework):
    sentence = "regularizer={!r} of RegularizationWindow has nothing to switch in this run: {}; con"
    decay, augment, dropout = (RegularizationWindow(name, 0, 2) for name in get_args(Regularizer))
    missing = "the weight decay of every parameter group is 0"
    assert sentence.format("weight_decay", missing) in wrong(decay, optimizer=undecayed)
    missing = "its DataModule has augment='none'"
    assert sentence.format("augmentation", missing) in wrong(augment, data={"augment": "none"})
    missing = "ClassificationTask has no layer that drops anything"
    assert sentence.format("dropout", missing) in wrong(dropout, dropout=0.0)
    no_data = "a DataModule of critical_periods, but this run has data loaders alone"
    for callback, words in (
        (augment, f"switches {no_data}"),
        (SubsetWindow(0.5), f"of {no_data}"),
        (LearningRateRestart(2), "finds no learning-rate schedule that could start over"),
        (LearningRateRestart(), "removal of a window, but this run has none; set its epoch"),
    ):
        module = third_party(framework)
        with pytest.raises(UserError, match=words):
            fit(framework, module, callback)
        assert not module.seen


def test_shares_that_are_too_small():
    between = "choose between 10 (one of each class) and 100 (all training images that there are)."
    assert wrong(SubsetWindow(0.05)) == f"share=0.05 asks for 5 images; {between}"
    batches = "the 2 batches of an epoch on share=0.4 of SubsetWindow; choose at most 2, or 1.0."
    message = wrong(SubsetWindow(0.4, 3), val_check_interval=3)
    assert message == f"val_check_interval=3 is more than {batches}"
