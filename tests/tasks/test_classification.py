"""The task: what it logs, what it draws and what it refuses."""

from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import ReduceLROnPlateau
from small_runs import Untrained, clean_samples, quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F

from critical_periods.callbacks import DeficitWindow
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.data import DigitsDataModule, StereoDigitsDataModule
from critical_periods.deficits import Blur
from critical_periods.models import MLP, AllCNN, SplitAllCNN, TimmClassifier
from critical_periods.tasks import ClassificationTask
from critical_periods.tasks.dry_run import validate_schedule


class Recorder(nn.Module):
    """Two eyes, a linear head, and a record of the random numbers that training draws."""

    def __init__(self, classes: int = 10, views: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.head = nn.Linear(views * 3 * 196, classes)
        self.draws: list[float] = []

    def forward(self, *views: Tensor) -> Tensor:
        if self.training:
            self.draws.append(torch.rand(()).item())
        return self.head(torch.cat([self.conv(view).flatten(1) for view in views], 1))


def trainer(epochs: int = 2, *callbacks: Any, **settings: Any) -> Any:
    return quiet_trainer(*callbacks, max_epochs=epochs, **settings)


def data() -> StereoDigitsDataModule:
    return StereoDigitsDataModule(batch_size=100, limit_train=250, augment="none")


def evaluated(task: ClassificationTask, split: str) -> tuple[float, float]:
    """Loss and accuracy of the task's network on a whole split, at once and in float64."""
    views, target, *_ = clean_samples(data(), split)
    network = Recorder().double().eval()
    network.load_state_dict(task.network.state_dict())
    with torch.no_grad():
        logits = network(*views.double().unbind(1))
    loss = F.nll_loss(logits.log_softmax(1), target).item()
    return loss, (logits.argmax(1) == target).double().mean().item()


def test_what_is_logged_is_the_mean_over_samples():
    """Of batches of 100 and one of 50 in training, or of 97 in validation."""
    fitting = trainer(1)
    # At a rate of 0 the network that is trained is the one that is evaluated.
    task = ClassificationTask(Recorder(), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    fitting.fit(task, data())
    logged = {key: value.item() for key, value in fitting.callback_metrics.items()}
    loss, accuracy = evaluated(task, "val")
    assert logged["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert logged["val/accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert logged["train/loss"] == pytest.approx(evaluated(task, "train")[0], rel=1e-5)
    assert logged.keys() == {"train/loss", "val/loss", "val/accuracy"}
    tested = trainer().test(task, data(), verbose=False)[0]
    assert tested == {
        "test/loss": pytest.approx(loss, rel=1e-5),
        "test/accuracy": pytest.approx(accuracy, abs=1e-6),
    }


def test_predictions_are_probabilities():
    predicted = trainer().predict(ClassificationTask(Recorder()), data())
    assert predicted is not None
    probabilities = torch.cat([part for part in predicted if isinstance(part, Tensor)])
    assert probabilities.shape == (797, 10) and (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(1), torch.ones(797))


def test_each_batch_of_each_epoch_draws_its_own_numbers():
    class Disturber(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            torch.rand(5)

    def draws(seed: int, *callbacks: pl.Callback) -> list[float]:
        pl.seed_everything(seed, verbose=False)
        network = Recorder()
        trainer(2, *callbacks).fit(ClassificationTask(network), data())
        return network.draws

    first = draws(1)
    assert len(set(first)) == len(first) == 2 * 3
    assert first == draws(1, Disturber())
    assert not set(first) & set(draws(2))


def test_the_learning_rate_follows_the_epoch():
    rates = []

    class Spy(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    scheduler = torch.optim.lr_scheduler.ExponentialLR
    task = ClassificationTask(Recorder(), lr_scheduler=lambda o: scheduler(o, 0.97))
    trainer(3, Spy()).fit(task, data())
    assert rates == pytest.approx([0.05 * 0.97**epoch for epoch in range(3) for _ in range(3)])
    (settings,) = task.configure_optimizers()["optimizer"].param_groups
    assert settings["momentum"] == 0.9 and settings["weight_decay"] == 5e-4
    assert len(settings["params"]) == len(list(task.parameters()))
    rates.clear()
    trainer(2, Spy()).fit(ClassificationTask(Recorder()), data())
    assert set(rates) == {0.05}


def test_convolutions_run_channels_last():
    seen = []
    task = ClassificationTask(Recorder())
    conv = task.network.conv
    assert isinstance(conv, nn.Conv2d)
    conv.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    task(*torch.zeros(2, 2, 1, 16, 16).unbind(1))
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in seen)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("64-true", torch.float64),
        ("bf16-true", torch.bfloat16),
        ("bf16-mixed", torch.float32),
        ("32-true", torch.float32),
    ],
)
def test_every_precision(precision, dtype):
    dtypes = []

    class Spy(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Batch, *args: Any) -> None:
            dtypes.append((batch.views.dtype, batch.target.dtype))

    task = ClassificationTask(Recorder())
    trainer(1, Spy(), DeficitWindow(Blur(views=[1])), precision=precision).fit(task, data())
    assert set(dtypes) == {(dtype, torch.int64)}
    assert task.dtype == dtype


def test_soft_targets_that_are_hard():
    task = ClassificationTask(Recorder(4))
    task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    views, hard, nothing = torch.randn(5, 2, 1, 16, 16), torch.arange(5) % 4, torch.full((5,), -1)
    both = (Batch(views, of, nothing, nothing) for of in (hard, F.one_hot(hard, 4).float()))
    torch.testing.assert_close(*(task.training_step(batch, 0) for batch in both))


def test_soft_targets_of_fewer_classes_than_the_network_has():
    logits = torch.randn(4, 5)
    task = ClassificationTask(nn.Identity(), num_classes=5)
    task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    soft = torch.tensor([[0.25, 0.75, 0], [1, 0, 0], [0, 0, 1], [0.5, 0, 0.5]])
    batch = Batch(logits[:, None, :, None, None], soft, torch.full((4,), -1), torch.arange(4))
    task.network = nn.Flatten()
    loss = task.training_step(batch, 0)
    expected = -(soft * logits.log_softmax(1)[:, :3]).sum(1).mean()
    torch.testing.assert_close(loss, expected)


def test_data_with_more_classes_than_the_network():
    task = ClassificationTask(Recorder(7, views=1), num_classes=7)
    with pytest.raises(UserError, match="num_classes=7 of ClassificationTask is less than the 10"):
        trainer().fit(task, DigitsDataModule())
    assert not task.network.draws


def two_rates(optimizer: torch.optim.Optimizer) -> Any:
    rates = [torch.optim.lr_scheduler.ConstantLR(optimizer, factor) for factor in (1.0, 0.5)]
    return torch.optim.lr_scheduler.SequentialLR(optimizer, rates, milestones=[3])


SGD = partial(torch.optim.SGD, lr=0.1)
SCHEDULES = torch.optim.lr_scheduler
STEPS = partial(SCHEDULES.MultiStepLR, milestones=[3, 1])


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        (two_rates, r"milestones=\[3\] of SequentialLR reach beyond .* trainer\.max_epochs=3\."),
        (STEPS, r"milestones=\[1, 3\] of MultiStepLR reach beyond .* trainer\.max_epochs=3\."),
    ],
)
def test_milestones_that_no_epoch_reaches(schedule, sentence):
    task = ClassificationTask(Recorder(), lr_scheduler=schedule)
    with pytest.raises(UserError, match=sentence):
        trainer(3, limit_val_batches=0).fit(task, data())
    assert not task.network.draws
    task = ClassificationTask(Recorder(), lr_scheduler=schedule)
    trainer(4, limit_val_batches=0, limit_train_batches=1).fit(task, data())
    assert len(task.network.draws) == 4


@pytest.mark.parametrize(
    ("optimizer", "schedule", "sentence"),
    [
        (partial(SGD, lr=-1.0), None, "optimizer cannot be built: Invalid learning rate: -1.0; c"),
        (partial(SGD, lr=float("nan")), None, r"lr=nan of the optimizer \(SGD\) is no finite nu"),
        (partial(SGD, weight_decay=float("inf")), None, "weight_decay=inf of the optimizer"),
        (torch.optim.LBFGS, None, r"optimizer \(LBFGS\) cannot go through 3 epochs: view size .*"),
        (torch.optim.SparseAdam, None, r"optimizer \(SparseAdam\) cannot go through 3 epochs: .*"),
        (SGD, partial(SCHEDULES.StepLR, step_size=0), r"lr_scheduler.* zero; correct its settings"),
        (SGD, partial(SCHEDULES.CosineAnnealingLR, T_max=0), "lr_scheduler.* zero; correct its s"),
        (SGD, partial(SCHEDULES.ExponentialLR, gamma=-1), "makes the learning rate -0.1 in epoch"),
        (SGD, partial(SCHEDULES.ExponentialLR, gamma=float("nan")), "learning rate nan in epoch 1"),
        (
            SGD,
            partial(SCHEDULES.OneCycleLR, max_lr=0.1, total_steps=2),
            r"lr_scheduler \(OneCycleLR\) cannot go through 3 epochs: Tried to step 3 times",
        ),
        (SGD, SCHEDULES.ReduceLROnPlateau, r"pytorch_lightning\.cli\.ReduceLROnPlateau.* monitor"),
    ],
)
def test_settings_of_the_optimiser_without_meaning(optimizer, schedule, sentence):
    task = ClassificationTask(Recorder(), optimizer=optimizer, lr_scheduler=schedule)
    with pytest.raises(UserError, match=sentence):
        trainer(3, limit_val_batches=0).fit(task, data())
    assert not task.network.draws


def test_a_schedule_that_just_fits_and_one_that_follows_a_measure():
    schedule = partial(SCHEDULES.OneCycleLR, max_lr=0.1, total_steps=3)
    task = ClassificationTask(Recorder(), optimizer=SGD, lr_scheduler=schedule)
    trainer(3, limit_val_batches=0, limit_train_batches=1).fit(task, data())

    plateau = partial(ReduceLROnPlateau, monitor="val/loss", patience=0, factor=0.5, threshold=9)
    task = ClassificationTask(Recorder(), optimizer=SGD, lr_scheduler=plateau)
    run = trainer(3, limit_train_batches=1, limit_val_batches=1)
    run.fit(task, data())
    assert [group["lr"] for group in run.optimizers[0].param_groups] == [0.1 * 0.5**3]


def test_the_dry_run_of_a_schedule_draws_nothing_of_training():
    state = torch.get_rng_state()
    validate_schedule(SGD, partial(SCHEDULES.ExponentialLR, gamma=0.5), epochs=4)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_dry_run_of_a_schedule_leaves_no_trace_in_training():
    weights = []
    for tried in (True, False):
        pl.seed_everything(5)
        task = ClassificationTask(Recorder(), optimizer=SGD)
        if tried:
            validate_schedule(SGD, partial(SCHEDULES.ExponentialLR, gamma=0.5), epochs=4)
        trainer(1, limit_val_batches=0).fit(task, data())
        weights.append(task.network.head.weight.detach())
    assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (partial(AllCNN, width=2), "AllCNN cannot take what DigitsDataModule gives, 1 view of 1x1"),
        (partial(AllCNN, 2, 5, in_channels=1), "num_classes=10 of .*, but AllCNN puts out 5 logit"),
        (partial(AllCNN, 2, 20, in_channels=1), "AllCNN puts out 20 logits; set num_classes of bo"),
        (partial(MLP, [8], in_features=100), "in_features=100 numbers .* set in_features to 256"),
        (partial(SplitAllCNN, 1, 2, in_channels=1), "SplitAllCNN takes 2 views"),
        (partial(TimmClassifier, "vit_tiny_patch16_224", 10, 1), "takes images of 224x224 pixels"),
    ],
)
def test_a_network_that_does_not_fit_the_data(network, sentence):
    task = ClassificationTask(network())
    before = [weight.clone() for weight in task.parameters()]
    with pytest.raises(UserError, match=sentence):
        trainer(1).fit(task, DigitsDataModule())
    assert all(torch.equal(*pair) for pair in zip(before, task.parameters(), strict=True))


@pytest.mark.parametrize("share", [-0.1, 2.0, float("nan")])
def test_a_label_smoothing_without_meaning(share):
    with pytest.raises(UserError, match=r"label_smoothing=.* must lie in \[0, 1\]"):
        ClassificationTask(Recorder(), label_smoothing=share)


class Pooled(nn.Module):
    """Batch norm of numbers, or none."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(256, 4), norm(4), nn.Linear(4, 10))

    def forward(self, view: Tensor) -> Tensor:
        return self.layers(view)


@pytest.mark.parametrize(
    ("norm", "samples", "batch_size", "settings", "shares", "last"),
    [
        (nn.BatchNorm1d, 101, 50, {}, [], 101),
        (nn.BatchNorm1d, 102, 50, {}, [], 0),
        # The batch of one sample is not reached.
        (nn.BatchNorm1d, 101, 50, {"limit_train_batches": 2}, [], 0),
        (nn.BatchNorm1d, 101, 50, {"limit_train_batches": 0.9}, [], 0),
        (nn.BatchNorm1d, 100, 1, {"limit_train_batches": 2}, [], 100),
        (nn.BatchNorm1d, 100, 25, {}, [0.51, 0.2], 51),
        (nn.BatchNorm1d, 100, 25, {}, [0.5], 0),
        # 103 samples are 102 for two processes, of which each has 25, 25 and 1.
        (nn.BatchNorm1d, 103, 25, {"devices": 2}, [], 103),
        (nn.BatchNorm1d, 104, 25, {"devices": 2}, [], 0),
        (nn.BatchNorm1d, 103, 25, {"devices": 2, "sync_batchnorm": True}, [], 0),
        (nn.LayerNorm, 101, 50, {}, [], 0),
    ],
)
def test_a_last_batch_of_one_sample(norm, samples, batch_size, settings, shares, last):
    """Found as training begins, where the network cannot train on it, and nowhere else."""
    task = ClassificationTask(Pooled(norm))
    before = {name: value.clone() for name, value in task.state_dict().items()}
    images = DigitsDataModule(limit_train=samples, batch_size=batch_size)
    images.setup()
    images.shares.update(shares)
    task.trainer = trainer(**settings)
    task.trainer.datamodule = images  # type: ignore[attr-defined]
    if last:
        says = f"Pooled cannot train on a batch of one sample .* of {last} samples in batches of "
        with pytest.raises(UserError, match=says + str(batch_size)):
            task.on_fit_start()
    else:
        task.on_fit_start()
    assert all(torch.equal(before[name], value) for name, value in task.state_dict().items())
    assert task.training


def test_a_batch_of_one_sample_without_batch_norm_trains():
    task = ClassificationTask(Pooled(nn.LayerNorm))
    trainer(1, limit_val_batches=0).fit(task, DigitsDataModule(limit_train=101, batch_size=50))
    with pytest.raises(UserError, match="on a batch of one sample"):
        task = ClassificationTask(Pooled(nn.BatchNorm1d))
        trainer(1).fit(task, DigitsDataModule(limit_train=101, batch_size=50))


class Stranger(pl.LightningModule):
    """A module that knows nothing of this package but its batches."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.model, self.calls = Pooled(norm), 0

    def training_step(self, batch: Batch) -> Tensor:
        self.calls += 1
        loss = nn.functional.cross_entropy(self.model(batch.views[:, 0]), batch.target)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_last_batch_of_one_sample_in_a_module_of_others():
    def fit(norm: Any, samples: int, *callbacks: Any) -> Any:
        torch.manual_seed(0)
        data, module = DigitsDataModule(limit_train=samples, batch_size=50), Stranger(norm)
        trainer(1, *callbacks, limit_val_batches=0).fit(module, data)
        return module

    with pytest.raises(UserError, match=r"^Stranger cannot train on a batch of one sample .* 101 "):
        fit(nn.BatchNorm1d, 101, Untrained())
    assert (fit(nn.BatchNorm1d, 102).calls, fit(nn.LayerNorm, 101).calls) == (3, 3)
