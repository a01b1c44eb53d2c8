"""Monitors: what they measure is right, on anyone's project, and training does not notice."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from small_runs import KeepsMedia, Untrained, clean_samples, quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.callbacks import (
    DeficitWindow,
    FisherMonitor,
    FreezeWindow,
    SourceVarianceMonitor,
    UsableInformationMonitor,
    WeightInformationMonitor,
)
from critical_periods.callbacks.monitors.monitor import Monitor
from critical_periods.callbacks.monitors.source_variance_monitor import recording
from critical_periods.callbacks.monitors.undisturbed import reestimated_batch_norm
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.data import DigitsDataModule, StereoDigitsDataModule
from critical_periods.deficits import Blur
from critical_periods.metrics.functional import fisher_trace
from critical_periods.models import MLP, SplitAllCNN, SplitResNet18
from critical_periods.tasks import ClassificationTask


class Record(pl.Callback):
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
    network = network or SplitAllCNN(depth=1, width=4, in_channels=1)
    return ClassificationTask(network, optimizer=lambda p: torch.optim.SGD(p, lr=0.05))


def train(
    folder: Path, module: Any, datamodule: Any, *monitors: Any, epochs: int = 2, **settings: Any
) -> list[dict[str, float]]:
    """What was logged in each epoch of a run on a DataModule, or on a dict of loaders."""
    record = Record()
    settings = {"default_root_dir": folder, "limit_val_batches": 1} | settings
    trainer = quiet_trainer(*monitors, record, max_epochs=epochs, **settings)
    loaders = datamodule if isinstance(datamodule, dict) else {"datamodule": datamodule}
    trainer.fit(module, **loaders)
    return record.epochs


def bits(network: nn.Module, views: tuple[Tensor, ...], target: Tensor) -> float:
    """Usable information by its definition, H(Y) - cross-entropy, in evaluation mode."""
    share = torch.bincount(target, minlength=10) / len(target)
    entropy = -sum(float(p) * math.log2(p) for p in share if p)
    with torch.no_grad():
        logits = network.eval()(*views).double()
    return entropy - float(F.cross_entropy(logits, target)) / math.log(2)


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


@pytest.mark.parametrize("reestimate", [False, True])
def test_rsv_is_that_of_its_definition(tmp_path, reestimate):
    """On clean samples while training has a deficit, with either statistics of batch norm."""
    module, datamodule, name = task(SplitResNet18(width=4, in_channels=1)), data(), "trunk.stage3.0"
    monitor = SourceVarianceMonitor([name], samples=10, pairs=3, reestimate_batch_norm=reestimate)
    logged = train(tmp_path, module, datamodule, DeficitWindow(Blur(views=[1])), monitor)[1]

    network = copy.deepcopy(module.network).double().eval()
    if reestimate:
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.reset_running_stats()
                part.momentum = None
                part.train()
        with torch.no_grad():
            for views in clean_samples(datamodule, "train").views.double().split(30):
                network(*views.unbind(1))
        network.eval()
    out: list[Tensor] = []
    network.get_submodule(name).register_forward_hook(lambda *args: out.append(args[2]))

    def layer(left: Tensor, right: Tensor) -> Tensor:
        out.clear()
        network(left, right)
        return out[0].detach()

    fixed = list(clean_samples(datamodule, "val", 3).views.double().unbind(1))
    draws = list(clean_samples(datamodule, "val", 10).views.double().unbind(1))
    rsv = plain_rsv(layer, fixed, draws)
    channels = plain_rsv(lambda a, b: layer(a, b).mean((2, 3)), fixed, draws)
    for key, values in ((f"rsv/{name}", rsv), (f"rsv/{name}/channels", channels)):
        live = values[~np.isnan(values)]
        assert logged[f"{key}/mean"] == pytest.approx(live.mean(), abs=1e-4)
        assert logged[f"{key}/dead"] == pytest.approx(np.isnan(values).mean(), abs=1e-3)
        assert logged[f"{key}/polarization"] == pytest.approx((abs(live) > 0.5).mean(), abs=5e-3)

    (path,) = (tmp_path / "rsv").iterdir()
    assert path.name == "epoch_0001.npz"  # of the last epoch alone
    with np.load(path) as arrays:
        parts = ("counts", "edges", "units")
        assert set(arrays) == {
            f"{of}/{what}" for of in (name, f"{name}/channels") for what in parts
        }
        np.testing.assert_allclose(arrays[f"{name}/edges"], np.linspace(-1, 1, 41), atol=1e-12)
        live, counts = rsv[~np.isnan(rsv)], arrays[f"{name}/counts"]
        expected = np.histogram(live, bins=40, range=(-1, 1))[0]
        assert counts.sum() == len(live)
        assert abs(counts - expected).sum() <= 0.01 * len(live)  # float32 rounds across edges
        units = arrays[f"{name}/units"]
        assert units.shape == (16, 4, 4) and arrays[f"{name}/channels/units"].shape == (16,)
        close = np.isclose(units.flatten(), np.nanmean(rsv, 0), atol=1e-3, equal_nan=True)
        assert close.mean() > 0.99


def test_histograms_go_to_wandb(tmp_path):
    monitor, logger = SourceVarianceMonitor(["trunk.conv"], samples=4, pairs=2), KeepsMedia()
    train(tmp_path, task(), data(), monitor, logger=logger)
    (media,) = logger.media
    assert media.keys() == {"rsv/trunk.conv", "rsv/trunk.conv/channels", "epoch"}
    with np.load(tmp_path / "rsv" / "epoch_0001.npz") as arrays:
        assert media["rsv/trunk.conv"].histogram == arrays["trunk.conv/counts"].tolist()


class Whole(nn.Module):
    """A split network that hides its pathways, so that every pair of views goes through all."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner = network

    def forward(self, *views: Tensor) -> Tensor:
        return self.inner(*views)


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


def test_channels_of_volumes_are_units():
    network = nn.Sequential(nn.Conv3d(1, 2, 3))
    with recording(network, ["0"]) as found:
        network(torch.zeros(3, 1, 4, 4, 4))
    assert found["0/channels"].shape == (3, 2)


def test_three_views_have_shares(tmp_path):
    """A view that a network does not look at has no share in what it does."""

    class Project(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 3)

        def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            return self.head((a + 2 * b).flatten(1)[:, :8])

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self(*batch[0].unbind(1)), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.0)

    torch.manual_seed(0)
    views = torch.randn(400, 3, 1, 4, 4)
    loader = DataLoader(TensorDataset(views, torch.arange(400) % 3), batch_size=100)
    monitor = SourceVarianceMonitor(["head"], split="train", pairs=5)
    logged = train(tmp_path, Project(), {"train_dataloaders": loader}, monitor, epochs=1)[0]
    shares = [logged[f"rsv/head/view_{view}"] for view in range(3)]
    assert sum(shares) == pytest.approx(1) and shares[2] == 0
    # f = w·a + 2 w·b: variances 1 to 4.
    assert shares[1] == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_fisher_and_information_by_their_definitions(tmp_path, precision):
    """On clean samples while training has a deficit, and of float32 weights without autocast."""
    module, datamodule = task(), data()
    monitors = FisherMonitor(samples=7), UsableInformationMonitor(samples=50)
    window = DeficitWindow(Blur(views=[1]))
    settings = {"epochs": 1, "precision": precision}
    (logged,) = train(tmp_path, module, datamodule, window, *monitors, **settings)
    network = module.network.eval()
    samples = clean_samples(datamodule, "train", 7)
    assert len(samples.index) == 7
    total, layers = fisher_trace(network, list(samples.views.unbind(1)))
    assert logged["fisher/trace"] == pytest.approx(float(total), rel=1e-6)
    traces = {key for key in logged if key.startswith("fisher/trace/")}
    assert traces == {f"fisher/trace/{layer}" for layer in layers}
    for layer, trace in layers.items():
        assert logged[f"fisher/trace/{layer}"] == pytest.approx(float(trace), rel=1e-6)

    views, target, *_ = clean_samples(datamodule, "val", 50)
    left, right = views.unbind(1)
    zero = torch.zeros_like(left)
    seen = {"both": (left, right), "view_0": (left, zero), "view_1": (zero, right)}
    for name, pair in seen.items():
        expected = bits(network, pair, target)
        assert logged[f"information/{name}"] == pytest.approx(expected, abs=1e-6)


def test_one_eye_has_information_but_no_rival(tmp_path):
    module, eye = task(MLP([], 256)), DigitsDataModule(limit_train=60)
    logged = train(tmp_path, module, eye, UsableInformationMonitor(), epochs=1)[0]
    assert "information/both" in logged and "information/view_0" not in logged
    with pytest.raises(UserError, match="what views do to a network, but the data has one"):
        train(tmp_path, module, eye, SourceVarianceMonitor(["head"]))


# When.


class Epochs(Monitor):
    """Notes the epochs in which it measures."""

    def __init__(self, every_n_epochs: int | None = None) -> None:
        super().__init__(every_n_epochs)
        self.measured: list[int] = []

    @property
    def logs(self) -> set[str]:
        return {str(self.every_n_epochs)}

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.measured.append(trainer.current_epoch)
        assert not pl_module.training


def test_cadence_and_the_last_epoch(tmp_path):
    expected = {None: [4], 1: [0, 1, 2, 3, 4], 2: [1, 3, 4], 3: [2, 4], 5: [4], 9: [4]}
    monitors = [Epochs(cadence) for cadence in expected]
    train(tmp_path, task(), data(), *monitors, epochs=5)
    assert {one.every_n_epochs: one.measured for one in monitors} == expected


@pytest.mark.parametrize(
    ("settings", "stops", "epochs"),
    [({"epochs": -1, "max_steps": 5}, False, [1]), ({"epochs": 9}, True, [2])],
    ids=["max_steps", "EarlyStopping"],
)
def test_the_last_epoch_of_a_run_that_ends_in_another_way(tmp_path, settings, stops, epochs):
    monitor, callbacks = Epochs(), []
    if stops:
        # By default it looks only after all other callbacks have seen the epoch's end.
        rule = {"patience": 2, "min_delta": 1e9, "check_on_train_epoch_end": False}
        callbacks = [pl.callbacks.EarlyStopping("val/loss", **rule)]
    train(tmp_path, task(), data(batch_size=20), *callbacks, monitor, **settings)
    assert monitor.measured == epochs


# Training does not notice.


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
        return self.head(both.mean((2, 3)))


def all_monitors(layer: str, split: str = "train") -> list[Monitor]:
    return [
        SourceVarianceMonitor([layer], 1, samples=12, pairs=3, reestimate_batch_norm=True),
        FisherMonitor(1, split, samples=6, num_draws=2),
        WeightInformationMonitor(1, split, samples=6, steps=2),
        UsableInformationMonitor(1, samples=20),
    ]


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])
def test_weights_are_those_of_training_alone(tmp_path, precision):
    states = []
    for folder, monitors in (("with", all_monitors("trunk.conv")), ("without", [])):
        pl.seed_everything(3, verbose=False)
        module = task(Dropping())
        train(tmp_path / folder, module, data(), *monitors, epochs=3, precision=precision)
        states.append((module.state_dict(), torch.get_rng_state()))
        assert all(part.training for part in module.modules())
        assert all(parameter.requires_grad for parameter in module.parameters())
    (with_monitors, after), (without, after_without) = states
    assert all(torch.equal(with_monitors[name], without[name]) for name in without)
    assert torch.equal(after, after_without)


def test_reestimated_statistics_are_of_clean_data(tmp_path):
    """One pass over clean training data, whatever augmentation training itself has seen."""
    module, datamodule = task(), data(batch_size=20)
    train(tmp_path, module, datamodule, epochs=1)
    network = module.network.eval()
    norms = {n: m for n, m in network.named_modules() if isinstance(m, nn.BatchNorm2d)}
    before = copy.deepcopy(network.state_dict())
    samples = clean_samples(datamodule, "train")
    batches = [Batch(*(part[i : i + 20] for part in samples)) for i in (0, 20, 40)]

    first = network.pathways[0].stem
    with torch.no_grad():
        inputs = [first.conv(batch.views[:, 0]) for batch in batches]
    mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
    variance = torch.stack([x.var((0, 2, 3), unbiased=True) for x in inputs]).mean(0)

    def average(statistic: Tensor) -> Tensor:
        return statistic / 4  # over this process and three others that have zeros

    with torch.no_grad(), reestimated_batch_norm(network, batches, average):
        torch.testing.assert_close(first.norm.running_mean, mean / 4, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(first.norm.running_var, variance / 4, rtol=1e-4, atol=1e-5)
        assert not any(norm.training for norm in norms.values())
    after = network.state_dict()
    assert before.keys() == after.keys() and len(norms) > 4
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(norm.momentum == 0.1 for norm in norms.values())

    def broken() -> Any:
        yield batches[0]
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"), torch.no_grad():  # noqa: SIM117
        with reestimated_batch_norm(network, broken(), average):
            pass
    assert all(torch.equal(before[name], network.state_dict()[name]) for name in before)


# Third parties' projects.


def third_party(framework: Any) -> tuple[Any, dict[str, Any]]:
    """A project that has never heard of this one: its own module, loaders and batches."""

    class Project(framework.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.eyes = nn.ModuleList(nn.Conv2d(1, 4, 3) for _ in range(2))
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4, 10)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            both = self.norm(self.eyes[0](left) + self.eyes[1](right))
            return self.head(F.dropout(both.relu().mean((2, 3)), 0.2, self.training))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            (left, right), target = batch
            return F.cross_entropy(self(left, right), target)

        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.05)

    left, right = torch.randn(2, 64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pairs: Any = [((left[i], right[i]), i % 10) for i in range(64)]
    shuffling = {"shuffle": True, "generator": torch.Generator().manual_seed(1)}
    return Project(), {
        "train_dataloaders": DataLoader(pairs, batch_size=16, **shuffling),
        "val_dataloaders": DataLoader(pairs[:24], batch_size=10),
    }


def test_third_parties_projects(tmp_path, framework):
    monitors = all_monitors("norm", "val")
    monitors[1] = FisherMonitor(1, "val", samples=5)
    states, logged = [], {}
    for folder, callbacks in (("with", monitors), ("without", [])):
        framework.seed_everything(5, verbose=False)
        project, loaders = third_party(framework)
        windows = DeficitWindow(Blur(factor=2, views=[1])), FreezeWindow(["head"])
        logged[folder] = train(
            tmp_path / folder, project, loaders, *windows, *callbacks, framework=framework
        )
        states.append(project.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    # A module without an attribute network is the network itself.
    unmoved = {name: torch.equal(project.get_parameter(name), value)
               for name, value in third_party(framework)[0].named_parameters()}  # fmt: skip
    assert unmoved["head.weight"] and unmoved["head.bias"] and not unmoved["eyes.0.weight"]
    keys = {"rsv/norm/mean", "rsv/norm/channels/polarization", "fisher/trace", "information/view_1"}
    assert all(keys <= set(epoch) and epoch["deficit/active"] == 1 for epoch in logged["with"])
    assert (tmp_path / "with" / "rsv" / "epoch_0001.npz").exists()

    # Of the one batch that the project validates on, which has no deficit.
    pairs = loaders["val_dataloaders"].dataset[:10]
    left, right = (torch.stack([views[eye] for views, _ in pairs]) for eye in (0, 1))
    target = torch.tensor([label for _, label in pairs])
    last = logged["with"][1]
    assert -1 < last["rsv/norm/mean"] < 1 and last["rsv/norm/dead"] == 0
    assert last["information/both"] == pytest.approx(bits(project, (left, right), target), abs=1e-5)
    expected, _ = fisher_trace(project, [left[:5], right[:5]])
    assert last["fisher/trace"] == pytest.approx(float(expected), rel=1e-5)


def test_third_parties_numbers_have_the_precision_of_the_run(tmp_path, framework):
    for precision in ("64-true", "bf16-true"):
        project, loaders = third_party(framework)
        monitors = FisherMonitor(samples=8), UsableInformationMonitor()
        settings = {"framework": framework, "precision": precision}
        logged = train(tmp_path, project, loaders, *monitors, epochs=1, **settings)[0]
        assert logged["fisher/trace"] > 0


def test_a_split_that_validates_in_the_last_epoch_alone(tmp_path):
    project, loaders = third_party(pl)
    monitor = UsableInformationMonitor(every_n_epochs=1)
    logged = train(tmp_path, project, loaders, monitor, check_val_every_n_epoch=2)
    assert all("information/both" in epoch for epoch in logged)


# Mistakes.


@pytest.mark.parametrize(
    ("monitor", "settings", "words"),
    [
        (lambda: SourceVarianceMonitor(["eyes"]), {}, "'eyes', which the network has but does not"),
        (lambda: UsableInformationMonitor(), {"limit_val_batches": 0}, "split='val' has no single"),
        (lambda: FisherMonitor(split="test"), {}, "split='test' has no single data loader"),
        (lambda: FisherMonitor(split="val"), {"val": None}, "split='val' has no single data load"),
    ],
)
def test_third_parties_hear_of_it_before_the_first_step(
    tmp_path, framework, monitor, settings, words
):
    project, loaders = third_party(framework)
    if "val" in settings:
        loaders["val_dataloaders"] = settings["val"]
        settings = {}
    with pytest.raises(UserError, match=words):
        train(tmp_path, project, loaders, Untrained(), monitor(), framework=framework, **settings)


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        ("trunk.cnv", r"'trunk\.cnv', which the network does not have; did you mean 'trunk\.conv'"),
        ("pathways", r"names 'pathways', which the network has but does not call"),
    ],
)
def test_layers_that_cannot_be_measured_are_found_before_training(tmp_path, layer, sentence):
    monitor = SourceVarianceMonitor([layer], samples=2, pairs=1)
    with pytest.raises(UserError, match=sentence):
        train(tmp_path, task(), data(), Untrained(), monitor)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FisherMonitor(0), r"every_n_epochs=0 of FisherMonitor must be at least 1\."),
        (lambda: FisherMonitor(samples=0), r"samples=0 of FisherMonitor must be at least 1\."),
        (lambda: FisherMonitor(num_draws=0), "num_draws=0 of FisherMonitor must be at least 1, or"),
        (lambda: UsableInformationMonitor(split="vall"), r"split='vall' .* unknown; did you mean"),
        (lambda: SourceVarianceMonitor(["a"], pairs=0), r"pairs=0 of SourceVarianceMonitor must"),
        (lambda: SourceVarianceMonitor([]), r"layers=\[\] of SourceVarianceMonitor must be a list"),
        (lambda: SourceVarianceMonitor("trunk"), "must be a list of module names"),
    ],
)
def test_settings_that_cannot_be(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def test_fisher_between_epochs_disturbs_nothing_and_is_the_epochs_at_their_ends(tmp_path):
    """Two batches an epoch, measured after each step; a run that goes on writes no row twice."""
    module, steps = task(), tmp_path / "steps" / "fisher" / "steps.csv"
    plain = copy.deepcopy(module)
    rows = train(tmp_path / "plain", plain, data(), FisherMonitor(samples=7))
    monitor = FisherMonitor(samples=7, every_n_steps=1)
    for _ in range(2):
        again = copy.deepcopy(module)
        measured = train(tmp_path / "steps", again, data(), monitor)
        assert measured == rows
        torch.testing.assert_close(again.state_dict(), plain.state_dict(), rtol=0, atol=0)
        table = pd.read_csv(steps)
        assert table["step"].tolist() == [1, 2, 3, 4]
        assert table["epoch"].tolist() == [0.5, 1, 1.5, 2]
        for key in ("fisher/trace", "fisher/trace_se", "fisher/trace/trunk.head"):
            ends = [row[key] for row in rows]
            assert table[key][1::2].tolist() == pytest.approx(ends, rel=1e-6)
    with pytest.raises(UserError, match="every_n_steps=0 of FisherMonitor must be at least 1"):
        FisherMonitor(every_n_steps=0)
