"""The window in this package's DataModules and in projects that have never heard of it."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import pytorch_lightning
import torch
from small_runs import quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.callbacks import DeficitWindow
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.data import StereoDigitsDataModule
from critical_periods.deficits import (
    Blur,
    Deficit,
    DeficitSlot,
    GaussianNoise,
    LabelPermutation,
    Occlusion,
    VerticalFlip,
)

SAMPLES, SIZE = 12, 4
IMAGES = torch.randn(2, SAMPLES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(SAMPLES) % 10


pytestmark = [
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no"),
    pytest.mark.filterwarnings("ignore:.*dataloader_iter"),
]


@pytest.fixture(autouse=True)
def seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")


def make_trainer(framework: Any, *callbacks: Any, epochs: int = 4, **settings: Any) -> Any:
    settings = {"max_epochs": epochs, "log_every_n_steps": 1, "num_sanity_val_steps": 1} | settings
    return quiet_trainer(*callbacks, framework=framework, **settings)


# Third parties' projects.


class Named(NamedTuple):
    pair: tuple[Tensor, Tensor]
    label: Tensor


@dataclass
class Record:
    left: Tensor
    right: Tensor
    y: Tensor


# How a project packs two views and a target, and how it unpacks them again.
FORMS: dict[str, tuple[Callable[..., Any], Callable[[Any], tuple[Tensor, Tensor, Tensor]]]] = {
    "tuple": (lambda a, b, y: ((a, b), y), lambda batch: (*batch[0], batch[1])),
    "list": (lambda a, b, y: [[a, b], y], lambda batch: (*batch[0], batch[1])),
    "dict": (
        lambda a, b, y: {"label": y, "views": {"left": a, "right": b}, "name": "x"},
        lambda batch: (batch["views"]["left"], batch["views"]["right"], batch["label"]),
    ),
    "named tuple": (lambda a, b, y: Named((a, b), y), lambda batch: (*batch.pair, batch.label)),
    "dataclass": (Record, lambda batch: (batch.left, batch.right, batch.y)),
    "batch": (
        lambda a, b, y: Batch(torch.stack([a, b], 1), y, *torch.full((2, len(y)), -1)),
        lambda batch: (*batch.views.unbind(1), batch.target),
    ),
    "stack": (
        lambda a, b, y: (torch.stack([a, b], 1), y),
        lambda batch: (batch[0][:, 0], batch[0][:, 1], batch[1]),
    ),
}


class Slices:
    """A loader whose batches are slices of one tensor, never copies."""

    def __init__(self, form: str = "tuple", images: Tensor = IMAGES, target: Tensor = TARGET):
        self.images, self.target, self.pack = images.clone(), target.clone(), FORMS[form][0]

    def __len__(self) -> int:
        return SAMPLES // SIZE

    def __iter__(self) -> Iterator[Any]:
        for start in range(0, SAMPLES, SIZE):
            part = slice(start, start + SIZE)
            yield self.pack(self.images[0, part], self.images[1, part], self.target[part])

    def is_untouched(self) -> bool:
        return torch.equal(self.images, IMAGES) and torch.equal(self.target, TARGET)


def third_party(framework: Any, form: str = "tuple", **methods: Any) -> Any:
    """A module of somebody's that keeps what its steps receive."""
    unpack = FORMS[form][1]

    class ThirdParty(framework.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))
            self.trained: list[tuple[int, Any]] = []
            self.validated: list[Any] = []

        def loss(self, batch: Any) -> Tensor:
            self.trained.append((self.current_epoch, batch))
            left, right, _ = unpack(batch)
            return ((left + right).mean((0, 2, 3)) * self.weight).sum()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.loss(batch)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.validated.append(batch)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    for name, method in methods.items():
        setattr(ThirdParty, name, method)
    return ThirdParty()


def received(module: Any, form: str = "tuple") -> list[tuple[int, int, Tensor, Tensor, Tensor]]:
    """Epoch, number of the batch, both views and the target of every training step."""
    unpack, per_epoch = FORMS[form][1], SAMPLES // SIZE
    return [
        (epoch, place % per_epoch, *unpack(batch))
        for place, (epoch, batch) in enumerate(module.trained)
    ]


def original(number: int) -> tuple[Tensor, Tensor, Tensor]:
    part = slice(number * SIZE, (number + 1) * SIZE)
    return IMAGES[0, part], IMAGES[1, part], TARGET[part]


@pytest.mark.parametrize("form", FORMS)
def test_third_parties_training_has_the_deficit_in_its_window_alone(framework, form):
    module, loader = third_party(framework, form), Slices(form)
    window = DeficitWindow(VerticalFlip(views=[1]), onset=1, removal=3)
    trainer = make_trainer(framework, window)
    trainer.fit(module, loader, Slices(form))
    steps = received(module, form)
    assert [epoch for epoch, *_ in steps] == [epoch for epoch in range(4) for _ in range(3)]
    for epoch, number, left, right, target in steps:
        expected = original(number)
        assert torch.equal(left, expected[0]) and torch.equal(target, expected[2])
        assert torch.equal(right, expected[1].flip(-2) if epoch in (1, 2) else expected[1])
    form_of_the_loader = type(next(iter(loader)))
    assert all(type(batch) is form_of_the_loader for _, batch in module.trained)
    assert loader.is_untouched()
    assert len(module.validated) == 1 + 4 * 3  # and a sanity check
    for place, batch in enumerate(module.validated[1:]):
        for part, expected_part in zip(FORMS[form][1](batch), original(place % 3), strict=True):
            assert torch.equal(part, expected_part)
    assert "training_step" not in vars(module)


def test_third_parties_targets(framework):
    module, deficit = third_party(framework, "dict"), LabelPermutation(seed=4)
    loader = Slices("dict")
    make_trainer(framework, DeficitWindow(deficit, removal=1), epochs=2).fit(module, loader)
    for epoch, number, left, _, target in received(module, "dict"):
        before = original(number)
        assert torch.equal(left, before[0])
        assert torch.equal(target, deficit.permutation[before[2]] if epoch < 1 else before[2])
    assert loader.is_untouched()


def test_steps_of_every_kind(framework):
    def only_batch(self: Any, batch: Any) -> Tensor:
        return self.loss(batch)

    def manual(self: Any, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()

    def decorator(step: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(step)
        def decorated(*args: Any, **kwargs: Any) -> Tensor:
            return step(*args, **kwargs)

        return decorated

    for settings, methods in (
        ({}, {"training_step": only_batch}),
        ({}, {"training_step": manual, "automatic_optimization": False}),
        ({}, {"training_step": decorator(only_batch)}),
        ({"accumulate_grad_batches": 2}, {}),
        ({"gradient_clip_val": 0.1}, {}),
        ({"precision": "bf16-true"}, {}),
    ):
        module, loader = third_party(framework, **methods), Slices()
        window = DeficitWindow(Blur(views=[0]), onset=1)
        make_trainer(framework, window, epochs=2, **settings).fit(module, loader)
        assert len(module.trained) == 6
        for epoch, number, left, right, _ in received(module):
            before = original(number)[0].to(left.dtype)
            assert torch.equal(left, Blur().degrade(before) if epoch else before)
            assert torch.equal(right, original(number)[1].to(left.dtype))
        assert loader.is_untouched() and not torch.equal(module.weight, torch.ones(3))


def test_a_step_of_the_instances_own_comes_back(framework):
    module, calls = third_party(framework), []

    def own(batch: Any, batch_idx: int) -> Tensor:
        calls.append(batch_idx)
        return type(module).training_step(module, batch, batch_idx)

    def self_first(self: Any, batch: Any, batch_idx: int) -> Tensor:
        return own(batch, batch_idx)

    module.training_step = mine = functools.partial(self_first, module)
    make_trainer(framework, DeficitWindow(Occlusion()), epochs=2).fit(module, Slices())
    assert calls == [0, 1, 2] * 2 and not any(left.any() for _, _, left, *_ in received(module))
    assert module.training_step is mine


def fails_in_epoch_1(error: type[BaseException]) -> Callable[..., Tensor]:
    def training_step(self: Any, batch: Any, batch_idx: int) -> Tensor:
        if self.current_epoch == 1:
            raise error("enough")
        return self.loss(batch)

    return training_step


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_no_trace(framework, error):
    module, loader = third_party(framework, training_step=fails_in_epoch_1(error)), Slices()
    with pytest.raises((error, SystemExit)):
        make_trainer(framework, DeficitWindow(Occlusion())).fit(module, loader)
    assert "training_step" not in vars(module) and loader.is_untouched()
    # The next run, without a window, is a clean one.
    module = third_party(framework)
    make_trainer(framework, epochs=1).fit(module, loader)
    assert torch.equal(received(module)[0][2], original(0)[0])


# Several windows.


class Scale(Deficit):
    """2x + c: two of them show their order."""

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = c

    def degrade(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return 2 * images + self.c

    def extra_repr(self) -> str:
        return f"c={self.c}"


def expected_scale(epoch: int, view: Tensor) -> Tensor:
    for c, onset, removal in ((1, 1, 4), (10, 0, 3), (100, 2, 3)):
        if onset <= epoch < removal:
            view = 2 * view + c
    return view


def scales() -> list[DeficitWindow]:
    return [
        DeficitWindow(Scale(1), onset=1),
        DeficitWindow(Scale(10), removal=3),
        DeficitWindow(Scale(100), onset=2, removal=3),
        DeficitWindow(Occlusion(), onset=2, removal=2),
    ]


def test_several_windows_act_in_the_order_of_the_callbacks(framework):
    module, loader = third_party(framework), Slices()
    make_trainer(framework, *scales()).fit(module, loader)
    for epoch, number, left, right, _ in received(module):
        torch.testing.assert_close(left, expected_scale(epoch, original(number)[0]))
        torch.testing.assert_close(right, expected_scale(epoch, original(number)[1]))
    assert loader.is_untouched() and "training_step" not in vars(module)


# Projects with a slot.


def eyes(**methods: Any) -> Any:
    """Keeps what it receives from this package's DataModule."""
    return third_party(pytorch_lightning, "batch", **methods)


def eyes_data(**settings: Any) -> StereoDigitsDataModule:
    return StereoDigitsDataModule(**{"batch_size": 50, "limit_train": 100, "width": 16} | settings)


def test_the_slot_is_filled_in_the_window_alone():
    module, data, clean = eyes(), eyes_data(), eyes()
    window = DeficitWindow(Blur(factor=4, views=[1]), onset=1, removal=3)
    filled = []

    class Spy(pytorch_lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            filled.append((trainer.current_epoch, list(data.deficits.active)))

    make_trainer(pytorch_lightning, window, Spy()).fit(module, data)
    assert filled == [(e, [window.deficit] if e in (1, 2) else []) for e in range(4) for _ in "ab"]
    assert not list(data.deficits.active)
    make_trainer(pytorch_lightning).fit(clean, eyes_data())
    for (epoch, batch), (_, plain) in zip(module.trained, clean.trained, strict=True):
        assert torch.equal(batch.views[:, 0], plain.views[:, 0])
        if epoch in (1, 2):
            torch.testing.assert_close(batch.views[:, 1], Blur().degrade(plain.views[:, 1]))
        else:
            assert torch.equal(batch.views[:, 1], plain.views[:, 1])
    for batch, plain in zip(module.validated, clean.validated, strict=True):
        assert torch.equal(batch.views, plain.views)
    assert "training_step" not in vars(module)


def test_several_windows_in_a_slot():
    module, clean = eyes(), eyes()
    make_trainer(pytorch_lightning, *scales()).fit(module, eyes_data())
    make_trainer(pytorch_lightning).fit(clean, eyes_data())
    for (epoch, batch), (_, plain) in zip(module.trained, clean.trained, strict=True):
        torch.testing.assert_close(batch.views, expected_scale(epoch, plain.views))


def test_an_exception_leaves_the_slot_empty():
    module, data = eyes(training_step=fails_in_epoch_1(RuntimeError)), eyes_data()
    with pytest.raises(RuntimeError, match="enough"):
        make_trainer(pytorch_lightning, DeficitWindow(Occlusion())).fit(module, data)
    assert len(module.trained) == 2 and not list(data.deficits.active)


def test_a_slot_in_a_datamodule_of_ones_own(framework: Any) -> None:
    class Own(framework.LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            self.deficits = DeficitSlot()

        def train_dataloader(self) -> Slices:
            return Slices("stack")

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
            views, target = batch
            nothing = torch.full_like(target, -1)
            return self.deficits(Batch(views, target, nothing, nothing))

    module = third_party(framework, training_step=lambda self, batch: self.loss(batch[:2]))
    module.loss = lambda batch: (
        module.trained.append((module.current_epoch, batch)) or (module.weight.sum())
    )
    window = DeficitWindow(Occlusion(views=[0]), onset=1)
    make_trainer(framework, window, epochs=2).fit(module, datamodule=Own())
    assert [bool(views[:, 0].any()) for _, (views, _) in module.trained] == [True] * 3 + [False] * 3
    assert all(views[:, 1].any() for _, (views, _) in module.trained)


# Random deficits.


def noise(
    framework: Any, *callbacks: Any, epochs: int = 4, folder: Path | None = None, **fit: Any
) -> Any:
    if folder is not None:
        saving = {"filename": "{epoch}", "save_top_k": -1, "save_on_train_epoch_end": True}
        callbacks += (framework.callbacks.ModelCheckpoint(folder, **saving),)
    settings = {"epochs": epochs, "enable_checkpointing": folder is not None}
    module = third_party(framework)
    make_trainer(framework, *callbacks, **settings).fit(module, Slices(), **fit)
    return module


def same_steps(first: list[Any], second: list[Any]) -> bool:
    assert len(first) == len(second) > 0
    return all(
        torch.equal(a, b)
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one[2:], other[2:], strict=True)
    )


def test_random_deficits_are_reproducible_and_never_repeat(framework):
    framework.seed_everything(5, verbose=False)
    windows = [DeficitWindow(GaussianNoise(views=[view])) for view in (0, 1)]
    first = received(noise(framework, *windows))
    torch.rand(7)
    again = received(noise(framework, *windows))
    assert same_steps(first, again)
    draws = [view for step in first for view in step[2:4]]
    assert len({tuple(draw.flatten().tolist()[:5]) for draw in draws}) == len(draws) == 24
    # The same callbacks in a run of another seed draw anew.
    framework.seed_everything(6, verbose=False)
    assert not same_steps(first, received(noise(framework, *windows)))


def test_random_deficits_go_on_exactly_where_they_were(framework, tmp_path):
    def window() -> DeficitWindow:
        return DeficitWindow(GaussianNoise(views=[0]), onset=1)

    framework.seed_everything(5, verbose=False)
    whole = noise(framework, window(), folder=tmp_path)
    for epoch in (0, 2):
        # The seed is the checkpoint's, whatever the process has been given since.
        framework.seed_everything(77, verbose=False)
        checkpoint = tmp_path / f"epoch={epoch}.ckpt"
        resumed = noise(framework, window(), ckpt_path=checkpoint, weights_only=True)
        steps = [step for step in received(whole) if step[0] > epoch]
        assert same_steps(received(resumed), steps)
        assert torch.equal(resumed.weight, whole.weight)


# Logging and checkpoints.


def logged(folder: Path) -> dict[int, list[float]]:
    rows = pd.read_csv(folder / "metrics.csv").dropna(subset="deficit/active")
    return {epoch: list(values) for epoch, values in rows.groupby("epoch")["deficit/active"]}


@pytest.mark.parametrize("has_slot", [False, True])
def test_active_is_logged_once_an_epoch_as_nought_or_one(framework, has_slot, tmp_path):
    if has_slot and framework is not pytorch_lightning:
        pytest.skip("this package's DataModules are pytorch_lightning's")
    logger = framework.loggers.CSVLogger(tmp_path, name="", version="")
    windows = [
        DeficitWindow(Blur(2), onset=1, removal=2),
        DeficitWindow(Blur(4), onset=1, removal=4),
        DeficitWindow(Occlusion(), onset=5),
    ]
    trainer = make_trainer(framework, *windows, epochs=6, logger=logger)
    if has_slot:
        trainer.fit(eyes(), eyes_data())
    else:
        trainer.fit(third_party(framework), Slices())
    assert logged(tmp_path) == {0: [0.0], 1: [1.0], 2: [1.0], 3: [1.0], 4: [0.0], 5: [1.0]}
    assert trainer.callback_metrics["deficit/active"] == 1


def test_active_is_logged_for_an_epoch_that_was_resumed_half_way(tmp_path):
    def fit(folder: str, **fit: Any) -> Any:
        checkpoint = pytorch_lightning.callbacks.ModelCheckpoint(
            tmp_path / folder, filename="{step}", save_top_k=-1, every_n_train_steps=1
        )
        logger = pytorch_lightning.loggers.CSVLogger(tmp_path / folder, name="", version="")
        settings: dict[str, Any] = {"epochs": 3, "logger": logger, "enable_checkpointing": True}
        window = DeficitWindow(Occlusion(views=[1]), onset=1, removal=2)
        trainer, module = make_trainer(pytorch_lightning, window, checkpoint, **settings), eyes()
        trainer.fit(module, eyes_data(), **fit)
        return module

    whole = fit("whole")
    half_way = tmp_path / "whole" / "step=3.ckpt"  # one of the two batches of epoch 1
    resumed = fit("resumed", ckpt_path=half_way, weights_only=True)
    assert logged(tmp_path / "resumed") == {1: [1.0], 2: [0.0]}
    assert [epoch for epoch, _ in resumed.trained] == [1, 2, 2]
    for (_, batch), (_, expected) in zip(resumed.trained, whole.trained[3:], strict=True):
        assert torch.equal(batch.views, expected.views)


def test_state_is_kept_in_checkpoints_that_execute_nothing(framework, tmp_path):
    windows = [
        DeficitWindow(GaussianNoise(views=[0])),
        DeficitWindow(LabelPermutation(seed=3), onset=1, removal=2),
    ]
    noise(framework, *windows, epochs=2, folder=tmp_path)
    content = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)
    for window in windows:
        state = content["callbacks"][window.state_key]
        assert state["seed"] == 11
        window.deficit.load_state_dict(state["deficit"])
    permutation = LabelPermutation(seed=3)
    fresh = DeficitWindow(permutation, onset=1)
    # A run that goes on with another removal finds its state.
    assert fresh.state_key == windows[1].state_key
    permutation.permutation.zero_()
    fresh.load_state_dict(content["callbacks"][fresh.state_key])
    assert torch.equal(permutation.permutation, LabelPermutation(seed=3).permutation)
    assert fresh.state_dict()["seed"] == 11


def test_windows_have_names_of_their_own_in_checkpoints(framework):
    deficits = Blur(2), Blur(4), Blur(2, [0]), Blur(2, [1]), Occlusion(), LabelPermutation()
    windows = [DeficitWindow(deficit, onset) for deficit in deficits for onset in (0, 1)]
    assert len({window.state_key for window in windows}) == len(windows)
    make_trainer(framework, *windows)  # Lightning refuses two of one name


# What is wrong is said before anything is trained.


def fit_wrong(framework: Any, window: DeficitWindow, loader: Any = None, **settings: Any) -> str:
    methods = settings.pop("methods", {})
    module = third_party(framework, **methods)
    trainer = make_trainer(framework, window, **settings)
    with pytest.raises(UserError) as caught:
        trainer.fit(module, Slices() if loader is None else loader)
    assert not module.trained and not {"training_step", "validation_step"} & set(vars(module))
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_windows_that_make_no_sense():
    assert not any(DeficitWindow(Blur(), 5, 5).is_open(epoch) for epoch in range(10))
    with pytest.raises(UserError, match=r"removal=3 of DeficitWindow lies before its onset=5; ch"):
        DeficitWindow(Blur(), onset=5, removal=3)
    with pytest.raises(UserError, match=r"onset=-1 of DeficitWindow must not be negative"):
        DeficitWindow(Blur(), onset=-1)


@pytest.mark.parametrize(("onset", "removal"), [(0, 5), (4, None), (9, 12)])
def test_windows_beyond_the_last_epoch(framework, onset, removal):
    message = fit_wrong(framework, DeficitWindow(Blur(), onset, removal))
    assert f"(onset={onset}, removal={removal}) reaches beyond the last epoch" in message
    assert "trainer.max_epochs=4" in message


@pytest.mark.parametrize(
    ("epochs", "settings"),
    [
        (5, {}),
        (-1, {"max_steps": 4 * math.ceil(SAMPLES / SIZE) + 1}),
        (5, {"fast_dev_run": True}),
    ],
)
def test_windows_up_to_the_last_epoch(framework, epochs, settings):
    module = third_party(framework)
    window = DeficitWindow(Occlusion(), onset=0, removal=5)
    make_trainer(framework, window, epochs=epochs, **settings).fit(module, Slices())
    assert not received(module)[0][2].any()


def test_batches_that_do_not_suit(framework):
    flat = DataLoader(TensorDataset(IMAGES[0].flatten(1), TARGET), SIZE)
    no_target = DataLoader(TensorDataset(IMAGES[0]), SIZE)
    for window, loader, words in (
        (
            DeficitWindow(Blur(views=[2])),
            None,
            "views=[2] of Blur names view 2, but the data has 2",
        ),
        (DeficitWindow(Blur()), flat, "no images were found in a batch that is"),
        (DeficitWindow(Blur(), 3), flat, "float32 [4, 192], 1: int64 [4]"),
        (DeficitWindow(LabelPermutation()), no_target, "no target was found"),
    ):
        assert words in fit_wrong(framework, window, loader)


@pytest.mark.parametrize("name", ["training_step", "validation_step"])
def test_steps_that_take_an_iterator(framework, name):
    def step(self: Any, dataloader_iter: Any) -> Tensor:
        return self.loss(next(dataloader_iter)[0])

    message = fit_wrong(framework, DeficitWindow(Blur(), validate=True), methods={name: step})
    assert f"{name} of ThirdParty takes dataloader_iter" in message


@pytest.mark.parametrize(
    ("deficit", "sentence"),
    [
        (Blur(views=[2]), r"names view 2, but the data has 2 views"),
        (Blur(factor=64), r"factor=64 of Blur leaves nothing of an image of 16x16"),
        (LabelPermutation(num_classes=9), r"num_classes=9 of LabelPermutation .* has 10 classes"),
        (LabelPermutation(num_classes=100), r"num_classes=100 of LabelPermutation .* 10 classes"),
    ],
)
def test_deficits_that_do_not_fit_a_datamodule(deficit, sentence):
    module, data = eyes(), eyes_data()
    with pytest.raises(UserError, match=sentence):
        make_trainer(pytorch_lightning, DeficitWindow(deficit, onset=3)).fit(module, data)
    assert not module.trained and not list(data.deficits.active)
