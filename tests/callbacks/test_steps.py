"""Windows that count steps: the first batch, resuming within an epoch, the end of the run."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pandas as pd
import pytest
import pytorch_lightning
import torch
from pytorch_lightning.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from small_runs import Untrained, quiet_trainer
from test_windows import equal, train
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from critical_periods.callbacks import (
    DeficitWindow,
    FreezeWindow,
    LearningRateRestart,
    RegularizationWindow,
    SubsetWindow,
)
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.deficits import Deficit, DeficitSlot, GaussianNoise

pytestmark = pytest.mark.filterwarnings(
    "ignore:You defined a `validation_step`", "ignore:You're resuming from", "ignore:training has"
)


class Seen(pytorch_lightning.Callback):
    """The views of every validation batch, and of every training batch by the steps before it."""

    def __init__(self) -> None:
        self.trained: list[tuple[int, Tensor]] = []
        self.validated: list[Tensor] = []

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        self.trained.append((trainer.global_step, batch.views.clone()))

    def on_validation_batch_start(self, trainer: Any, module: Any, batch: Any, *_: Any) -> None:
        self.validated.append(batch.views.clone())


# With this package's data: 5 batches an epoch.

WINDOWS: dict[str, Callable[..., list[Any]]] = {
    "deficits": lambda n, unit: [
        DeficitWindow(GaussianNoise(), n, 3 * n, True, unit=unit),
        DeficitWindow(GaussianNoise(views=[0]), 2 * n, unit=unit),
    ],
    "freezing": lambda n, unit: [FreezeWindow(["eyes.1", "rest.0"], n, 2 * n, unit)],
    "regularisers": lambda n, unit: [
        RegularizationWindow("weight_decay", 0, 2 * n, unit),
        RegularizationWindow("augmentation", n, 3 * n, unit),
        RegularizationWindow("dropout", 3 * n, None, unit),
        # One of each unit.
        RegularizationWindow("dropout", 1, 2),
    ],
}


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_in_steps_is_one_in_epochs_to_the_bit(name: str):
    seen = Seen(), Seen()
    settings = {"epochs": 4, "val_check_interval": 0.5, "accumulate_grad_batches": 2}
    in_epochs, diary, _ = train(*WINDOWS[name](1, "epoch"), seen[0], **settings)
    # 5 batches, of which the last is a step of its own.
    in_steps, other, _ = train(*WINDOWS[name](3, "step"), seen[1], **settings)
    assert equal(in_epochs, in_steps) and diary.steps == other.steps
    for a, b in zip(seen[0].validated, seen[1].validated, strict=True):
        assert torch.equal(a, b)


ANYWHERE: list[Callable[[], Any]] = [
    lambda: DeficitWindow(GaussianNoise(), 3, 12, unit="step"),
    lambda: DeficitWindow(GaussianNoise(views=[1]), 7, 8, unit="step"),
    lambda: FreezeWindow(["eyes.0"], 2, 6, "step"),
    lambda: RegularizationWindow("weight_decay", 4, 9, "step"),
    lambda: RegularizationWindow("augmentation", 0, 7, "step"),
    lambda: RegularizationWindow("dropout", 6, 13, "step"),
]


def test_resumed_at_any_step_to_the_bit(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    whole, diary, _ = train(*(make() for make in ANYWHERE), saver, epochs=3)
    for step in (1, 3, 4, 5, 6, 9, 12):
        windows = [make() for make in ANYWHERE]
        resumed, rest, _ = train(*windows, resume=tmp_path / f"step={step}.ckpt", epochs=3)
        assert equal(resumed, whole), step
        assert rest.steps == diary.steps[step:], step


def test_regularisers_switch_within_an_epoch():
    _, diary, _ = train(*(make() for make in ANYWHERE), epochs=3)
    for number, step in enumerate(diary.steps):
        assert step["decay"] == ([0.1, 0.02] if 4 <= number < 9 else [0, 0])
        assert step["augment"] == ("shared" if number < 7 else "none")
        assert step["dropout"] == ((0.3, 0.3) if 6 <= number < 13 else (0, 0))


# Which batch is the first with the deficit.


class Plus(Deficit):
    """x + 1."""

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return images + 1


class Project(pytorch_lightning.LightningModule):
    """Keeps, for each batch, the steps before it and whether it had the deficit."""

    def __init__(self, optimizers: int = 0) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(4, 1), []  # type: ignore[var-annotated]
        self.number, self.automatic_optimization = optimizers, not optimizers

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        images = batch.views[:, 0] if isinstance(batch, Batch) else batch[0]
        self.seen.append((self.trainer.global_step, bool(images.min() > 0.5)))
        loss = self.layer(images.flatten(1)).square().mean()
        for optimizer in self.optimizers() if self.number else ():
            optimizer.zero_grad()
            self.manual_backward(loss, retain_graph=True)
            optimizer.step()
        return None if self.number else loss

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> Any:
        made = [torch.optim.SGD(self.parameters(), lr=0.0) for _ in range(self.number or 1)]
        return made if self.number else made[0]


IMAGES = torch.zeros(14, 1, 2, 2)


def loader(**settings: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(IMAGES, torch.arange(14)), 2, **settings)  # 7 batches


class Slotted(pytorch_lightning.LightningDataModule):
    """A data stage of its own, whose workers run ahead of training."""

    def __init__(self) -> None:
        super().__init__()
        self.deficits = DeficitSlot()

    def train_dataloader(self) -> Any:
        return loader(num_workers=2, prefetch_factor=4)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        whose = torch.full((len(batch[1]),), -1)
        return self.deficits(Batch(batch[0][:, None], batch[1], whose, whose))


def fit(window: Any, *callbacks: Any, module: Any = None, data: Any = None, **settings: Any) -> Any:
    module = module or Project()
    trainer = quiet_trainer(window, *callbacks, **({"max_epochs": 3} | settings))
    if isinstance(data, pytorch_lightning.LightningDataModule):
        trainer.fit(module, datamodule=data)
    else:
        trainer.fit(module, loader() if data is None else data)
    return module.seen


@pytest.mark.parametrize(
    ("make", "settings", "open_batches"),
    [
        (dict, {}, range(4, 11)),
        (lambda: {"data": Slotted()}, {}, range(4, 11)),
        # Steps of 2, 2, 2 and 1 batches: the batches of one step are alike.
        (dict, {"accumulate_grad_batches": 2}, [*range(7, 14), *range(14, 20)]),
        (lambda: {"data": Slotted()}, {"accumulate_grad_batches": 2}, range(7, 20)),
        # Two steps a batch, and three: an onset within a batch waits for the next one.
        (lambda: {"module": Project(2)}, {}, range(2, 6)),
        (lambda: {"module": Project(3)}, {}, range(2, 4)),
        (dict, {"max_epochs": -1, "max_steps": 11}, range(4, 11)),
        (dict, {"max_epochs": 4, "limit_train_batches": 3}, range(4, 11)),
        (dict, {"callbacks": [GradientAccumulationScheduler({0: 1, 1: 3})]}, range(4, 17)),
    ],
)
def test_the_first_batch_and_the_last(make, settings, open_batches):
    callbacks = settings.get("callbacks", [])
    settings = {name: value for name, value in settings.items() if name != "callbacks"}
    window = DeficitWindow(Plus(), 4, 11, unit="step")
    seen = fit(window, *callbacks, **make(), **settings)
    assert [place for place, (_, with_it) in enumerate(seen) if with_it] == list(open_batches)
    assert all(with_it == (4 <= step < 11) for step, with_it in seen)


def test_freezing_begins_and_ends_between_batches():
    module = Project(2)
    weights = []

    class Before(pytorch_lightning.Callback):
        def on_train_batch_start(self, *args: Any) -> None:
            weights.append(module.layer.weight.clone())

    module.configure_optimizers = lambda: [  # type: ignore[method-assign]
        torch.optim.SGD(module.parameters(), lr=rate) for rate in (0.1, 0.2)
    ]
    images = torch.ones(14, 1, 2, 2)
    data = DataLoader(TensorDataset(images, torch.arange(14)), 2)
    fit(FreezeWindow(["layer"], 3, 9, "step"), Before(), module=module, data=data, max_epochs=1)
    same = [torch.equal(a, b) for a, b in pairwise(weights)]
    # Batches 2 to 4 begin after 4, 6 and 8 steps; batch 5 after 10.
    assert same == [False, False, True, True, True, False]


def test_active_is_logged_at_each_batch(tmp_path):
    logger = pytorch_lightning.loggers.CSVLogger(tmp_path, name="", version="")
    windows = [
        DeficitWindow(Plus(), 2, 4, unit="step"),
        FreezeWindow(["eyes.0"], 1, 2),  # an epoch of 5
        RegularizationWindow("weight_decay", 1, 2),
    ]
    train(*windows, epochs=3, logger=logger, log_every_n_steps=1)
    table = pd.read_csv(tmp_path / "metrics.csv")
    active = table.dropna(subset="deficit/active")
    assert active["step"].tolist() == list(range(15))
    assert active["deficit/active"].tolist() == [0, 0, 1, 1, 0, *[1] * 5, *[0] * 5]
    assert table["regularization/active"].dropna().tolist() == [0, 1, 0]


# The end of training: 7 batches an epoch.


def in_epochs(onset: int, removal: int | None = None) -> Any:
    return DeficitWindow(Plus(), onset, removal)


def in_steps(onset: int, removal: int | None = None) -> Any:
    return DeficitWindow(Plus(), onset, removal, unit="step")


def name_of(setting: Any) -> str:
    return getattr(setting, "described", str(setting))


BEYOND = "reaches beyond the last {} of training: {}."


@pytest.mark.parametrize(
    ("window", "settings", "end"),
    [
        (in_steps(0, 11), {"max_steps": 10}, ("step", "trainer.max_steps=10")),
        (in_steps(10), {"max_steps": 10}, ("step", "trainer.max_steps=10")),
        (in_steps(9, 10), {"max_steps": 10}, None),
        (in_steps(0, 22), {}, ("step", "trainer.max_epochs=3 at 7 steps an epoch")),
        (in_steps(20, 21), {}, None),
        (
            in_steps(13),
            {"accumulate_grad_batches": 2},
            ("step", "trainer.max_epochs=3 at 4 steps an epoch"),
        ),
        (in_steps(11), {"accumulate_grad_batches": 2}, None),
        (
            in_steps(6),
            {"limit_train_batches": 2},
            ("step", "trainer.max_epochs=3 at 2 steps an epoch"),
        ),
        (in_epochs(0, 3), {"max_epochs": -1, "max_steps": 15}, None),
        (
            in_epochs(0, 50),
            {"max_epochs": None, "max_steps": 15},
            ("epoch", "trainer.max_steps=15 at 7 steps an epoch"),
        ),
        (
            in_epochs(3),
            {"max_epochs": 9, "max_steps": 12, "accumulate_grad_batches": 2},
            ("epoch", "trainer.max_steps=12 at 4 steps an epoch"),
        ),
        (in_epochs(2), {"max_epochs": 9, "max_steps": 12, "accumulate_grad_batches": 2}, None),
        (in_steps(0, 50), {"fast_dev_run": True}, None),
        (in_epochs(0, 50), {"fast_dev_run": 2}, None),
        # Epochs without an end, each of which ends.
        (in_epochs(1, 2), {"max_epochs": -1, "max_time": "00:00:00:01"}, None),
    ],
    ids=name_of,
)
def test_what_lies_beyond_the_end(window: Any, settings: Any, end: tuple[str, str] | None):
    if end is None:
        fit(window, **settings)
        return
    with pytest.raises(UserError) as caught:
        fit(window, Untrained(), **settings)
    assert str(caught.value) == f"the window of {window.described} {BEYOND.format(*end)}"


class Stream(IterableDataset):
    def __init__(self, length: int | None = None) -> None:
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        number = 0
        while self.length is None or number < self.length:
            yield IMAGES[0], 0
            number += 1


@pytest.mark.parametrize(
    ("window", "settings", "refused"),
    [
        (in_epochs(0, 5), {"max_epochs": -1, "max_steps": 8}, True),
        (in_epochs(2), {"max_epochs": -1, "max_steps": 8}, True),
        (in_epochs(1), {"max_epochs": -1, "max_time": "00:00:00:30"}, True),
        (in_epochs(0, 1), {"max_epochs": 3, "max_steps": 8}, True),
        (in_epochs(0), {"max_epochs": -1, "max_steps": 8}, False),
        (in_steps(2, 5), {"max_epochs": -1, "max_steps": 8}, False),
        # Here epochs end.
        (in_epochs(1, 2), {"max_epochs": 2, "length": 6}, False),
        (in_epochs(1, 2), {"max_epochs": -1, "max_steps": 8, "limit_train_batches": 4}, False),
    ],
    ids=name_of,
)
def test_streams_whose_epochs_may_never_end(window: Any, settings: Any, refused: bool):
    data = DataLoader(Stream(settings.pop("length", None)), 2)
    if refused:
        with pytest.raises(UserError, match=r"counts epochs, .* give it in steps \(unit: step\)"):
            fit(window, Untrained(), data=data, **settings)
        return
    seen = fit(window, data=data, **settings)
    if window.unit == "step":
        assert [with_it for _, with_it in seen] == [2 <= n < 5 for n in range(8)]


def test_an_end_that_nobody_could_know_is_said():
    class Stop(pytorch_lightning.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            trainer.should_stop = True

    window = in_epochs(0, 2)
    sentence = r"ended after 1 epochs, before the end of the window of DeficitWindow \(onset=0"
    with pytest.warns(UserWarning, match=sentence):
        fit(window, Stop())


def test_a_restart_beyond_the_last_epoch():
    class Scheduled(Project):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

    settings = {"module": Scheduled(), "max_epochs": -1, "max_steps": 14}
    with pytest.raises(UserError, match="epoch=2 of LearningRateRestart lies beyond the last"):
        fit(LearningRateRestart(2), Untrained(), **settings)
    fit(LearningRateRestart(1), **settings)
    with pytest.raises(UserError, match=r"\(onset=0, removal=3, unit=step\) counts steps; set the"):
        fit(LearningRateRestart(), in_steps(0, 3), Untrained(), **settings)


def test_units_that_make_no_sense():
    with pytest.raises(UserError, match="unit='steps' of FreezeWindow is unknown; did you mean"):
        FreezeWindow(["layer"], unit="steps")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="images of an epoch are drawn before its first step"):
        SubsetWindow(0.5, 0, 3, unit="step")
