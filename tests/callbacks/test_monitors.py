"""Monitors measure what the pure functions say, and training does not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as other
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from critical_periods.callbacks import (
    DeficitWindow,
    FisherMonitor,
    SourceVarianceMonitor,
    UsableInformationMonitor,
)
from critical_periods.callbacks.monitors.monitor import Monitor, evaluating, reestimated_batch_norm
from critical_periods.core.errors import UserError
from critical_periods.data import StereoDigitsDataModule
from critical_periods.deficits import Blur
from critical_periods.metrics.functional import (
    channel_mean,
    fisher_trace,
    relative_source_variance,
    source_variance,
    usable_information,
)
from critical_periods.models import SplitResNet18
from critical_periods.tasks import ClassificationTask

LAYER = "trunk.stage4"


def data() -> StereoDigitsDataModule:
    return StereoDigitsDataModule(batch_size=50, limit_train=100)


def fit(folder: Path, *callbacks: pl.Callback, epochs: int = 2) -> tuple[pl.Trainer, Any]:
    pl.seed_everything(1, verbose=False)
    task = ClassificationTask(SplitResNet18(width=4, in_channels=1))
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        limit_val_batches=2, num_sanity_val_steps=0, callbacks=list(callbacks),
    )  # fmt: skip
    trainer.fit(task, data())
    return trainer, task


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pl.Trainer, Any]:
    folder = tmp_path_factory.mktemp("measured")
    trainer, task = fit(
        folder,
        DeficitWindow(Blur(views=[1])),
        SourceVarianceMonitor([LAYER], samples=20, pairs=3, reestimate_batch_norm=True),
        FisherMonitor(samples=4),
        UsableInformationMonitor(samples=60),
    )
    return folder, trainer, task


def samples(split: str, number: int) -> tuple[list[Tensor], Tensor]:
    module = data()
    module.setup()
    batches = [
        module.on_after_batch_transfer(
            module.transfer_batch_to_device(draw, torch.device("cpu"), 0), 0
        )
        for draw in module.measurement_loader(split, number)
    ]
    return (
        list(torch.cat([batch.views for batch in batches]).unbind(1)),
        torch.cat([batch.target for batch in batches]),
    )


def test_training_does_not_notice(measured, tmp_path):
    _, alone = fit(tmp_path, DeficitWindow(Blur(views=[1])))
    watched = measured[2].state_dict()
    for name, value in alone.network.state_dict().items():
        assert torch.equal(watched[f"network.{name}"], value), name
    assert all(part.training for part in measured[2].network.modules())
    assert all(parameter.requires_grad for parameter in measured[2].network.parameters())


def test_rsv_is_that_of_the_pure_functions_by_full_forward_passes(measured):
    folder, trainer, task = measured
    network = task.network
    fixed, _ = samples("val", 3)
    pool, _ = samples("val", 20)
    clean, _ = samples("train", None)  # type: ignore[arg-type]

    def stage4(*views: Tensor) -> Tensor:
        x = sum(path(view) for path, view in zip(network.pathways, views, strict=True))
        return network.trunk.stage4(network.trunk.stage3(x))

    # Batch-norm statistics of the clean training data: two batches of 50, averaged.
    with evaluating(network), torch.no_grad():
        before = {name: buffer.clone() for name, buffer in network.named_buffers()}
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()
                part.momentum = None
                part.train()
        for first in (0, 50):
            network(*(view[first : first + 50] for view in clean))
        network.eval()
        for key, reduce in (("", lambda x: x), ("/channels", channel_mean)):
            variances = torch.stack(
                [
                    source_variance(lambda *v, r=reduce: r(stage4(*v)), fixed, pool[view], view)
                    for view in (0, 1)
                ]
            )
            expected = relative_source_variance(variances)
            mean = trainer.callback_metrics[f"rsv/{LAYER}{key}/mean"]
            torch.testing.assert_close(mean, expected.nanmean().float(), rtol=1e-3, atol=1e-4)
            polarised = (expected.abs() > 0.5).double().mean().float()
            logged = trainer.callback_metrics[f"rsv/{LAYER}{key}/polarization"]
            torch.testing.assert_close(logged, polarised, rtol=1e-2, atol=1e-2)
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.1
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
    with np.load(folder / "rsv" / "epoch_0001.npz") as arrays:
        counts, edges = arrays[f"{LAYER}/counts"], arrays[f"{LAYER}/edges"]
        assert counts.sum() == 3 * arrays[f"{LAYER}/units"].size and len(counts) == 40
        assert edges[0] == -1 and edges[-1] == 1


def test_fisher_is_that_of_the_pure_function(measured):
    _, trainer, task = measured
    views, _ = samples("train", 4)
    total, layers = fisher_trace(task.network, views)
    torch.testing.assert_close(trainer.callback_metrics["fisher/trace"], total.float())
    for layer, trace in layers.items():
        logged = trainer.callback_metrics[f"fisher/trace/{layer}"]
        torch.testing.assert_close(logged, trace.float(), rtol=1e-4, atol=1e-6)


def test_information_is_that_of_the_pure_function(measured):
    _, trainer, task = measured
    (left, right), target = samples("val", 60)
    with evaluating(task), torch.no_grad():
        for key, seen in {
            "both": (left, right),
            "view_0": (left, torch.zeros_like(right)),
            "view_1": (torch.zeros_like(left), right),
        }.items():
            expected = usable_information(task.network(*seen), target).float()
            logged = trainer.callback_metrics[f"information/{key}"]
            torch.testing.assert_close(logged, expected, rtol=1e-4, atol=1e-4)


class Epochs(Monitor):
    """Notes the epochs in which it measures."""

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.measured = [*getattr(self, "measured", []), trainer.current_epoch]
        assert not pl_module.training


@pytest.mark.parametrize(("cadence", "epochs"), [(None, [4]), (2, [1, 3, 4]), (5, [4]), (9, [4])])
def test_cadence_and_the_last_epoch(tmp_path, cadence, epochs):
    monitor = Epochs(every_n_epochs=cadence)
    fit(tmp_path, monitor, epochs=5)
    assert monitor.measured == epochs


@pytest.mark.parametrize(
    ("settings", "epochs"),
    [({"max_epochs": -1, "max_steps": 5}, [1]), ({"max_epochs": 9, "callbacks": "stops"}, [2])],
    ids=["max_steps", "EarlyStopping"],
)
def test_the_last_epoch_of_a_run_that_ends_in_another_way(tmp_path, settings, epochs):
    monitor, callbacks = Epochs(), []
    if settings.pop("callbacks", None):
        # By default it looks only after all other callbacks have seen the epoch's end.
        stops = {"patience": 2, "min_delta": 1e9, "check_on_train_epoch_end": False}
        callbacks = [pl.callbacks.EarlyStopping("val/loss", **stops)]
    settings = {"limit_train_batches": 3, "limit_val_batches": 1, **settings}
    trainer = pl.Trainer(
        accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, callbacks=[*callbacks, monitor],
        **settings,
    )  # fmt: skip
    data = StereoDigitsDataModule(batch_size=50, limit_train=150)
    trainer.fit(ClassificationTask(SplitResNet18(width=1, in_channels=1)), data)
    assert monitor.measured == epochs


def test_batch_norm_gets_its_own_statistics_back():
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Flatten()).eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}

    class Batches:
        def __iter__(self) -> Any:
            for value in (1.0, 3.0):
                views = torch.full((4, 1, 2), value)
                yield type("B", (), {"views": views})()

    def average(statistic: Tensor) -> Tensor:
        return statistic / 4 if statistic.mean() > 0 else statistic  # of three others with 0

    with reestimated_batch_norm(network, Batches(), average):  # type: ignore[arg-type]
        torch.testing.assert_close(network[0].running_mean, torch.full((2,), 0.5))
        assert not network[0].training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert network[0].momentum == 0.1


def stranger_module(package: Any) -> Any:
    class Stranger(package.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.eyes = nn.ModuleList(nn.Conv2d(1, 4, 3) for _ in range(2))
            self.head = nn.Linear(4, 3)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return self.head((self.eyes[0](left) + self.eyes[1](right)).relu().mean((2, 3)))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            (left, right), target = batch
            return F.cross_entropy(self(left, right), target)

        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    return Stranger()


@pytest.mark.parametrize("package", [pl, other], ids=["pytorch_lightning", "lightning"])
def test_in_a_project_that_is_not_this_one(tmp_path, package):
    images = torch.randn(24, 2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    pairs = [((a, b), i % 3) for i, (a, b) in enumerate(images)]
    loader = DataLoader(pairs, batch_size=8)  # type: ignore[arg-type]
    trainer = package.Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        callbacks=[
            DeficitWindow(Blur(factor=2, views=[1])),
            SourceVarianceMonitor(["head"], samples=16, pairs=4),
            FisherMonitor(split="train", samples=8),
            UsableInformationMonitor(),
        ],
    )  # fmt: skip
    module = stranger_module(package)
    trainer.fit(module, loader, loader)
    logged = trainer.callback_metrics
    expected, _ = fisher_trace(module, list(images[:8].unbind(1)))
    torch.testing.assert_close(logged["fisher/trace"], expected.float())
    target = torch.arange(24) % 3
    both = usable_information(module(*images.unbind(1)), target)
    torch.testing.assert_close(logged["information/both"], both.float(), rtol=1e-4, atol=1e-4)
    assert -1 < logged["rsv/head/mean"] < 1 and logged["rsv/head/dead"] == 0
    assert logged["deficit/active"] == 1


def stranger_run(
    package: Any, folder: Any, *callbacks: Any, views: int = 2, **settings: Any
) -> Any:
    """Trains a stranger's module; gives the trainer back."""
    images = torch.randn(24, 2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    pairs = [((a, b) if views == 2 else a, i % 3) for i, (a, b) in enumerate(images)]
    loader = DataLoader(pairs, batch_size=8)  # type: ignore[arg-type]
    module = stranger_module(package)
    if views == 1:
        module.training_step = lambda batch, batch_idx: module(batch[0], batch[0]).sum()
    trainer = package.Trainer(
        **{"max_epochs": 2, "accelerator": "cpu", "default_root_dir": folder, "logger": False,
           "enable_progress_bar": False, "enable_model_summary": False,
           "enable_checkpointing": False, "callbacks": list(callbacks), **settings},
    )  # fmt: skip
    trainer.fit(module, loader, loader)
    return trainer


@pytest.mark.parametrize("package", [pl, other], ids=["pytorch_lightning", "lightning"])
@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_strangers_numbers_have_the_precision_of_the_run(tmp_path, package, precision):
    monitors = [FisherMonitor(samples=8), UsableInformationMonitor()]
    trainer = stranger_run(package, tmp_path, *monitors, precision=precision)
    assert trainer.callback_metrics["fisher/trace"] > 0


def test_a_split_that_validates_in_the_last_epoch_alone(tmp_path):
    settings = {"check_val_every_n_epoch": 2, "num_sanity_val_steps": 0}
    trainer = stranger_run(pl, tmp_path, UsableInformationMonitor(every_n_epochs=1), **settings)
    assert "information/both" in trainer.callback_metrics


@pytest.mark.parametrize("package", [pl, other], ids=["pytorch_lightning", "lightning"])
@pytest.mark.parametrize(
    ("monitor", "settings", "words"),
    [
        (lambda: SourceVarianceMonitor(["head"]), {"views": 1}, "views .*, but the data has one"),
        (lambda: SourceVarianceMonitor(["eyes"]), {}, "'eyes', which the network has but does not"),
        (lambda: UsableInformationMonitor(), {"limit_val_batches": 0}, "split='val' has no single"),
        (lambda: FisherMonitor(split="test"), {}, "split='test' has no single data loader"),
    ],
)
def test_strangers_hear_of_it_before_the_first_step(tmp_path, package, monitor, settings, words):
    class Steps(package.Callback):
        taken = 0

        def on_before_optimizer_step(self, *args: Any) -> None:
            self.taken += 1

    steps = Steps()
    with pytest.raises(UserError, match=words):
        stranger_run(package, tmp_path, steps, monitor(), **settings)
    assert not steps.taken


def test_unknown_layer_before_training(tmp_path):
    with pytest.raises(UserError, match=r"'trunk.stage5'.*did you mean 'trunk.stage4'"):
        fit(tmp_path, SourceVarianceMonitor(["trunk.stage5"]))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FisherMonitor(every_n_epochs=0), "every_n_epochs=0 of FisherMonitor"),
        (lambda: FisherMonitor(samples=0), "samples=0 of FisherMonitor"),
        (lambda: FisherMonitor(num_draws=0), "num_draws=0 of FisherMonitor must be at least 1, or"),
        (lambda: UsableInformationMonitor(split="vall"), "did you mean 'val'"),
        (lambda: SourceVarianceMonitor([LAYER], pairs=0), "pairs=0"),
        (lambda: SourceVarianceMonitor(LAYER), "must be a list of module names"),
    ],
)
def test_settings_without_meaning(make, words):
    with pytest.raises(UserError, match=words):
        make()
