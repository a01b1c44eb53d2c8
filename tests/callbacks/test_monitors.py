"""Monitors: what they measure is right, on anyone's project, and training does not notice."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch
import numpy as np
import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.callbacks import (
    FisherMonitor,
    SourceVarianceMonitor,
    UsableInformationMonitor,
    WeightInformationMonitor,
)
from critical_periods.callbacks.monitors.monitor import Monitor, reestimated_batch_norm
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.data import DigitsDataModule, StereoDigitsDataModule
from critical_periods.metrics.functional import fisher_trace
from critical_periods.models import SplitAllCNN, SplitResNet18
from critical_periods.tasks import ClassificationTask

FRAMEWORKS = pytest.mark.parametrize(
    "framework", [pytorch_lightning, lightning.pytorch], ids=["pytorch_lightning", "lightning"]
)


class Record(pytorch_lightning.Callback):
    """Everything that was logged, epoch by epoch; it stands after the monitors."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        # Lightning goes on to show what was logged in earlier epochs.
        self.earlier = dict(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        found = trainer.callback_metrics.items()
        new = {key: float(value) for key, value in found if value is not self.earlier.get(key)}
        self.epochs.append(new)


def data(**settings: Any) -> StereoDigitsDataModule:
    return StereoDigitsDataModule(**{"limit_train": 60, "batch_size": 30, **settings})


def task(network: nn.Module | None = None) -> ClassificationTask:
    torch.manual_seed(1)
    # Dropout, so that a draw too many or too few in training would show.
    network = network or SplitAllCNN(depth=1, width=4, in_channels=1)
    if isinstance(network, SplitAllCNN):
        network.trunk.insert(1, nn.Dropout(0.3)) if isinstance(network.trunk, list) else None
    return ClassificationTask(network, optimizer=lambda p: torch.optim.SGD(p, lr=0.05))


def train(
    folder: Path,
    module: Any,
    datamodule: Any,
    *monitors: Any,
    epochs: int = 2,
    framework: Any = pytorch_lightning,
    **settings: Any,
) -> list[dict[str, float]]:
    record = Record()
    trainer = framework.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, limit_val_batches=1, callbacks=[*monitors, record], **settings,
    )  # fmt: skip
    trainer.fit(module, **datamodule) if isinstance(datamodule, dict) else trainer.fit(
        module, datamodule
    )
    return record.epochs


def images(datamodule: Any, split: str, samples: int | None = None) -> Batch:
    """The clean samples that a measurement is about, as one batch."""
    found = []
    for draw in datamodule.measurement_loader(split, samples):
        batch = datamodule.transfer_batch_to_device(draw, torch.device("cpu"), 0)
        found.append(datamodule.on_after_batch_transfer(batch, 0))
    return Batch(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def all_monitors(**settings: Any) -> list[Monitor]:
    return [
        SourceVarianceMonitor(["trunk.conv"], 1, samples=12, pairs=3, **settings),
        FisherMonitor(1, samples=6, num_draws=2),
        WeightInformationMonitor(1, samples=6, steps=2),
        UsableInformationMonitor(1, samples=20),
    ]


# What is measured.


def plain_rsv(
    layer: Callable[[Tensor, Tensor], Tensor], fixed: list[Tensor], draws: list[Tensor]
) -> np.ndarray:
    """RSV [pairs, units] by its definition, in float64 and with nothing but loops."""
    rsv = []
    for a, b in zip(*fixed, strict=True):
        varied_a = torch.stack([layer(draw[None], b[None])[0] for draw in draws[0]])
        varied_b = torch.stack([layer(a[None], draw[None])[0] for draw in draws[1]])
        sv_a, sv_b = (v.flatten(1).numpy().var(0) for v in (varied_a, varied_b))
        with np.errstate(invalid="ignore"):
            rsv.append((sv_a - sv_b) / (sv_a + sv_b))
    return np.stack(rsv)


def test_rsv_is_that_of_its_definition(tmp_path):
    module, datamodule = task(SplitResNet18(width=4, in_channels=1)), data()
    monitor = SourceVarianceMonitor(["trunk.stage3.0"], samples=10, pairs=3)
    logged = train(tmp_path, module, datamodule, monitor, epochs=1)[0]

    network = copy.deepcopy(module.network).double().eval()
    out: list[Tensor] = []
    network.get_submodule("trunk.stage3.0").register_forward_hook(
        lambda module, args, output: out.append(output)
    )

    def layer(left: Tensor, right: Tensor) -> Tensor:
        out.clear()
        network(left, right)
        return out[0].detach()

    fixed = list(images(datamodule, "val", 3).views.double().unbind(1))
    draws = list(images(datamodule, "val", 10).views.double().unbind(1))
    rsv = plain_rsv(layer, fixed, draws)
    key = "rsv/trunk.stage3.0"
    live = rsv[~np.isnan(rsv)]
    assert logged[f"{key}/mean"] == pytest.approx(live.mean(), abs=1e-4)
    assert logged[f"{key}/dead"] == pytest.approx(np.isnan(rsv).mean(), abs=1e-3)
    assert logged[f"{key}/polarization"] == pytest.approx((abs(live) > 0.5).mean(), abs=5e-3)

    channels = plain_rsv(lambda a, b: layer(a, b).mean((2, 3)), fixed, draws)
    live = channels[~np.isnan(channels)]
    assert logged[f"{key}/channels/mean"] == pytest.approx(live.mean(), abs=1e-4)

    with np.load(tmp_path / "rsv" / "epoch_0000.npz") as arrays:
        assert set(arrays) == {
            f"trunk.stage3.0{channels}/{what}"
            for channels in ("", "/channels")
            for what in ("counts", "edges", "units")
        }
        edges = arrays["trunk.stage3.0/edges"]
        np.testing.assert_allclose(edges, np.linspace(-1, 1, 41), atol=1e-12)
        counts = arrays["trunk.stage3.0/counts"]
        assert counts.sum() == (~np.isnan(rsv)).sum()
        expected = np.histogram(rsv[~np.isnan(rsv)], bins=40, range=(-1, 1))[0]
        assert abs(counts - expected).sum() <= 0.01 * counts.sum()  # float32 rounds across edges
        units = arrays["trunk.stage3.0/units"]
        assert units.shape == (16, 4, 4)
        close = np.isclose(units.flatten(), np.nanmean(rsv, 0), atol=1e-3, equal_nan=True)
        assert close.mean() > 0.99
        assert arrays["trunk.stage3.0/channels/units"].shape == (16,)


class Whole(nn.Module):
    """A split network that hides its pathways, so that every pair of views goes through all."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner = network

    def forward(self, *views: Tensor) -> Tensor:
        output: Tensor = self.inner(*views)
        return output


def test_each_view_encoded_once_gives_what_all_pairs_in_full_give(tmp_path):
    network = SplitResNet18(width=4, in_channels=1)
    layers = ["trunk.stage3", "trunk.stage4", "trunk.pool"]
    results = []
    for folder, whole in (("split", network), ("whole", Whole(network))):
        prefix = "" if folder == "split" else "inner."
        monitor = SourceVarianceMonitor([prefix + layer for layer in layers], samples=9, pairs=4)
        module = task(copy.deepcopy(whole))
        logged = train(tmp_path / folder, module, data(), monitor, epochs=1)[0]
        results.append({key.replace(prefix, ""): value for key, value in logged.items()})
    split, whole = results
    assert set(split) == set(whole) and sum("rsv" in key for key in split) == 18
    for key in split:
        assert split[key] == pytest.approx(whole[key], abs=2e-4)


def test_layers_of_a_pathway_listen_to_their_own_view_alone(tmp_path):
    layers = ["pathways.1.stem", "pathways.0.stem"]
    monitor = SourceVarianceMonitor(layers, samples=8, pairs=2)
    logged = train(tmp_path, task(), data(), monitor, epochs=1)[0]
    assert logged["rsv/pathways.0.stem/mean"] == 1
    assert logged["rsv/pathways.1.stem/mean"] == -1
    # The order of the layers, not that of the forward pass.
    keys = [key for key in logged if key.endswith("stem/mean")]
    assert keys == ["rsv/pathways.1.stem/mean", "rsv/pathways.0.stem/mean"]


def test_three_views_have_shares(tmp_path):
    """A view that a network does not look at has no share in what it does."""

    class Project(pytorch_lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 3)

        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            output: Tensor = self.head((a + 2 * b).flatten(1)[:, :8])
            return output

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self(*batch[0].unbind(1)), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.0)

    torch.manual_seed(0)
    views = torch.randn(400, 3, 1, 4, 4)
    loader = DataLoader(TensorDataset(views, torch.arange(400) % 3), batch_size=100)
    monitor = SourceVarianceMonitor(["head"], split="train", pairs=5)
    loaders = {"train_dataloaders": loader}
    logged = train(tmp_path, Project(), loaders, monitor, epochs=1)[0]
    shares = [logged[f"rsv/head/view_{view}"] for view in range(3)]
    assert sum(shares) == pytest.approx(1)
    assert shares[2] == 0
    # f = w·a + 2 w·b: variances 1 to 4.
    assert shares[1] == pytest.approx(0.8, abs=0.03)


def test_fisher_is_that_of_the_same_samples(tmp_path):
    module, datamodule = task(), data()
    logged = train(tmp_path, module, datamodule, FisherMonitor(samples=7), epochs=1)[0]
    samples = images(datamodule, "train", 7)
    assert len(samples.index) == 7
    total, layers = fisher_trace(module.network.eval(), list(samples.views.unbind(1)))
    assert logged["fisher/trace"] == pytest.approx(float(total), rel=1e-6)
    assert set(logged) - {"train/loss", "val/loss", "val/accuracy", "fisher/trace"} == {
        f"fisher/trace/{layer}" for layer in layers
    }
    for layer, trace in layers.items():
        assert logged[f"fisher/trace/{layer}"] == pytest.approx(float(trace), rel=1e-6)


def test_information_by_hand(tmp_path):
    module, datamodule = task(), data()
    logged = train(tmp_path, module, datamodule, UsableInformationMonitor(), epochs=1)[0]
    samples = images(datamodule, "val")
    left, right = samples.views.unbind(1)
    share = torch.bincount(samples.target, minlength=10) / len(samples.target)
    entropy = -sum(float(p) * math.log2(p) for p in share if p)
    zero = torch.zeros_like(left)
    module.eval()
    for name, views in (
        ("both", (left, right)),
        ("view_0", (left, zero)),
        ("view_1", (zero, right)),
    ):
        with torch.no_grad():
            bits = F.cross_entropy(module(*views).double(), samples.target) / math.log(2)
        assert logged[f"information/{name}"] == pytest.approx(entropy - float(bits), abs=1e-5)


def test_one_eye_has_information_but_no_rival(tmp_path):
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(256, 10)

        def forward(self, view: Tensor) -> Tensor:
            output: Tensor = self.head(view.flatten(1))
            return output

    eye = DigitsDataModule(limit_train=60)
    logged = train(tmp_path, task(Flat()), eye, UsableInformationMonitor(), epochs=1)[0]
    assert "information/both" in logged and "information/view_0" not in logged
    with pytest.raises(
        UserError, match="compares what views do to a network, but the data has one"
    ):
        train(tmp_path, task(Flat()), eye, SourceVarianceMonitor(["head"]))


# When, and that training does not notice.


def test_cadence(tmp_path):
    monitors = [FisherMonitor(2, samples=2), UsableInformationMonitor(3, samples=20)]
    monitors += [SourceVarianceMonitor(["trunk.conv"], samples=2, pairs=1)]
    logged = train(tmp_path, task(), data(), *monitors, epochs=5)
    when = {
        key: [key in epoch for epoch in logged]
        for key in ("fisher/trace", "information/both", "rsv/trunk.conv/mean")
    }
    assert when["fisher/trace"] == [False, True, False, True, True]
    assert when["information/both"] == [False, False, True, False, True]
    assert when["rsv/trunk.conv/mean"] == [False, False, False, False, True]
    assert [path.name for path in (tmp_path / "rsv").iterdir()] == ["epoch_0004.npz"]


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_weights_are_those_of_training_alone(tmp_path, precision):
    states = []
    for folder, monitors in (("with", all_monitors(reestimate_batch_norm=True)), ("without", [])):
        pytorch_lightning.seed_everything(3, verbose=False)
        module = task(Dropping())
        train(tmp_path / folder, module, data(), *monitors, epochs=3, precision=precision)
        states.append((module.state_dict(), torch.get_rng_state()))
        assert all(part.training for part in module.modules())
    (with_monitors, after), (without, after_without) = states
    assert all(torch.equal(with_monitors[name], without[name]) for name in without)
    assert torch.equal(after, after_without)


class Dropping(nn.Module):
    """Two pathways with batch norm and dropout: everything that has state or draws."""

    def __init__(self) -> None:
        super().__init__()
        self.pathways = nn.ModuleList(
            nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
            for _ in range(2)
        )
        self.trunk = nn.ModuleDict({"conv": nn.Conv2d(4, 8, 3), "norm": nn.BatchNorm2d(8)})
        self.head = nn.Linear(8, 10)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        both = self.pathways[0](left) + self.pathways[1](right)
        both = self.trunk["norm"](self.trunk["conv"](F.dropout(both, 0.3, self.training)))
        output: Tensor = self.head(both.mean((2, 3)))
        return output


def test_bf16_training_is_measured_in_float32(tmp_path):
    """The network's float32 weights, without autocast."""
    module, datamodule = task(), data()
    monitor = UsableInformationMonitor(samples=50)
    logged = train(tmp_path, module, datamodule, monitor, epochs=1, precision="bf16-mixed")[0]
    samples = images(datamodule, "val", 50)
    share = torch.bincount(samples.target, minlength=10) / 50
    entropy = -sum(float(p) * math.log2(p) for p in share if p)
    module.eval()
    with torch.no_grad():
        logits = module.network(*samples.views.unbind(1)).double()
    bits = float(F.cross_entropy(logits, samples.target)) / math.log(2)
    assert logged["information/both"] == pytest.approx(entropy - bits, abs=1e-6)


def test_reestimated_statistics_are_of_clean_data(tmp_path):
    """One pass over clean training data, whatever augmentation training itself has seen."""
    module, datamodule = task(), data(batch_size=20)
    train(tmp_path, module, datamodule, epochs=1)
    network = module.network.eval()
    norms = {n: m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    before = copy.deepcopy(network.state_dict())
    samples = images(datamodule, "train")
    batches = [Batch(*(part[i : i + 20] for part in samples)) for i in (0, 20, 40)]

    first = network.pathways[0].stem
    with torch.no_grad():
        inputs = [first.conv(batch.views[:, 0]) for batch in batches]
    mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    variance = torch.stack([x.var((0, 2, 3), unbiased=True) for x in inputs]).mean(0)
    with torch.no_grad(), reestimated_batch_norm(network, batches, torch.clone):
        torch.testing.assert_close(first.norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(first.norm.running_var, variance, rtol=1e-4, atol=1e-5)
        assert not any(norm.training for norm in norms.values())
    after = network.state_dict()
    assert before.keys() == after.keys() and len(norms) > 4
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(norm.momentum == 0.1 for norm in norms.values())

    def broken() -> Any:
        yield batches[0]
        raise RuntimeError("no more")

    with (
        pytest.raises(RuntimeError, match="no more"),
        torch.no_grad(),
        reestimated_batch_norm(network, broken(), torch.clone),
    ):
        pass
    assert all(torch.equal(before[name], network.state_dict()[name]) for name in before)


def test_reestimating_changes_what_is_measured_and_nothing_else(tmp_path):
    results = []
    for reestimate in (False, True):
        module = task()
        monitor = SourceVarianceMonitor(
            ["trunk.conv"], samples=12, pairs=3, reestimate_batch_norm=reestimate
        )
        logged = train(tmp_path / str(reestimate), module, data(), monitor, epochs=1)[0]
        results.append((logged["rsv/trunk.conv/mean"], module.state_dict()))
    assert results[0][0] != results[1][0]
    assert all(torch.equal(results[0][1][name], results[1][1][name]) for name in results[0][1])


# Other people's projects.


def strangers(framework: Any) -> tuple[Any, dict[str, Any]]:
    """A project that has never heard of this one: its own module, loaders and batches."""

    class Project(framework.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4, 10)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            both = self.norm(self.left(left) + self.right(right))
            output: Tensor = self.head(F.dropout(both.relu().mean((2, 3)), 0.2, self.training))
            return output

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            (left, right), target = batch
            loss = F.cross_entropy(self(left, right), target)
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            (left, right), target = batch
            self.log("val_loss", F.cross_entropy(self(left, right), target))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.05)

    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(2, 64, 1, 8, 8, generator=generator)
    pairs = [((left[i], right[i]), i % 10) for i in range(64)]
    shuffled = DataLoader(
        pairs, batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(1)
    )
    return Project(), {
        "train_dataloaders": shuffled,
        "val_dataloaders": DataLoader(pairs[:24], batch_size=10),
    }


@FRAMEWORKS
def test_other_peoples_projects(tmp_path, framework):
    monitors = [
        SourceVarianceMonitor(["norm"], 1, samples=12, pairs=3, reestimate_batch_norm=True),
        FisherMonitor(1, samples=5, num_draws=1),
        WeightInformationMonitor(1, split="val", samples=5, steps=2),
        UsableInformationMonitor(1),
    ]
    states, logged = [], {}
    for folder, callbacks in (("with", monitors), ("without", [])):
        framework.seed_everything(5, verbose=False)
        project, loaders = strangers(framework)
        record = train(tmp_path / folder, project, loaders, *callbacks, framework=framework)
        logged[folder] = record
        states.append(project.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    keys = {"rsv/norm/mean", "rsv/norm/channels/polarization", "fisher/trace", "information/view_1"}
    assert all(keys <= set(epoch) for epoch in logged["with"])
    assert (tmp_path / "with" / "rsv" / "epoch_0001.npz").exists()

    # The informations are about the one batch that the project validates on.
    project.load_state_dict(states[0])
    project.eval()
    pairs = loaders["val_dataloaders"].dataset[:10]
    left, right = (torch.stack([views[eye] for views, _ in pairs]) for eye in (0, 1))
    target = torch.tensor([label for _, label in pairs])
    share = torch.bincount(target, minlength=10) / len(target)
    entropy = -sum(float(p) * math.log2(p) for p in share if p)
    with torch.no_grad():
        bits = float(F.cross_entropy(project(left, right).double(), target)) / math.log(2)
    assert logged["with"][1]["information/both"] == pytest.approx(entropy - bits, abs=1e-5)


# Mistakes.


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FisherMonitor(0), r"every_n_epochs=0 of FisherMonitor must be at least 1\."),
        (lambda: FisherMonitor(samples=0), r"samples=0 of FisherMonitor must be at least 1\."),
        (lambda: FisherMonitor(split="vall"), r"split='vall' of FisherMonitor is unknown; did you"),
        (lambda: SourceVarianceMonitor(["a"], pairs=0), r"pairs=0 of SourceVarianceMonitor must"),
        (lambda: SourceVarianceMonitor([]), r"layers=\[\] of SourceVarianceMonitor must be a list"),
        (lambda: SourceVarianceMonitor("trunk"), r"layers='trunk' of SourceVarianceMonitor must"),
    ],
)
def test_settings_that_cannot_be(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


class Odd(SplitAllCNN):
    """A network with a part that gives two tensors."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    def __init__(self) -> None:
        super().__init__(depth=1, width=4, in_channels=1)
        self.two = self.Two()

    def fuse(self, *features: Tensor) -> Tensor:
        return super().fuse(*(self.two(feature)[0] for feature in features))


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (
            "trunk.cnv",
            r"names 'trunk\.cnv', which the network does not have; did you mean 'trunk\.c",
        ),
        ("pathways", r"names 'pathways', which the network has but does not call"),
        ("two", r"the layer 'two' puts out a tuple, not a tensor"),
    ],
)
def test_layers_that_cannot_be_measured_are_found_before_training(tmp_path, layer, sentence):
    class Never(ClassificationTask):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            raise AssertionError("trained")

    monitor = SourceVarianceMonitor([layer], samples=2, pairs=1)
    with pytest.raises(UserError, match=sentence):
        train(tmp_path, Never(Odd()), data(), monitor)


def test_a_stranger_without_the_split(tmp_path):
    project, loaders = strangers(pytorch_lightning)
    del loaders["val_dataloaders"]
    with pytest.raises(UserError, match=r"split='val' has no single data loader in this project"):
        train(tmp_path, project, loaders, FisherMonitor(split="val"), epochs=1)
