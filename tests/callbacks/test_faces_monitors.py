"""Confusion, excitation, regions and other data sets: what their monitors log, tested."""

import csv
import functools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning
import torch
from small_runs import KeepsMedia, clean_samples, quiet_trainer
from small_study import planned
from timm.layers import SqueezeExcite
from torch import Tensor, nn

from critical_periods.callbacks import (
    ConfusionMatrixMonitor,
    CrossDatasetMatrix,
    ExcitationMonitor,
    RegionMonitor,
)
from critical_periods.callbacks.monitors.confusion_matrix_monitor import class_names
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.data import DigitsDataModule, FacesDataModule
from critical_periods.metrics.functional import energy_share, grad_cam
from critical_periods.models import AllCNN
from critical_periods.studies import worker
from critical_periods.studies.report import write_report
from critical_periods.studies.tables import read_table
from critical_periods.tasks import ClassificationTask


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride=2)
        self.se = SqueezeExcite(8, rd_channels=4)
        self.head = nn.Linear(8, 7)

    def forward(self, view: Tensor) -> Tensor:
        return self.head(self.se(self.conv(view)).square().mean((2, 3)))


def faces(**settings: Any) -> FacesDataModule:
    return FacesDataModule(**{"size": 24, "samples": 70, "batch_size": 35} | settings)


def fit(network: nn.Module, *monitors: Any, data: Any = None, **settings: Any) -> Any:
    pytorch_lightning.seed_everything(3, verbose=False)
    sgd = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    rate = functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.8)
    task = ClassificationTask(network, 7, sgd, rate)
    trainer = quiet_trainer(*monitors, **{"max_epochs": 1} | settings)
    trainer.fit(task, faces() if data is None else data)
    return trainer


def test_rows_of_the_confusion_matrix_sum_to_one(tmp_path):
    monitor, network, logger = ConfusionMatrixMonitor(), Squeezed(), KeepsMedia()
    trainer = fit(network, monitor, default_root_dir=tmp_path, logger=logger)
    batch = clean_samples(trainer.datamodule, "val")
    answers = network(batch.views[:, 0]).argmax(1)
    expected = torch.zeros(7, 7, dtype=torch.float64)
    for target, answer in zip(batch.target, answers, strict=True):
        expected[target, answer] += 1 / 100
    torch.testing.assert_close(monitor.matrix.double(), expected, atol=1e-6, rtol=0)
    assert (monitor.matrix.sum(1) - 1).abs().max() < 1e-6
    assert trainer.callback_metrics["recall/fear"] == monitor.matrix[2, 2]
    (file,) = Path(tmp_path).glob("**/confusion/epoch_0000.csv")
    rows = list(csv.reader(file.open(encoding="utf-8")))
    assert rows[0][:3] == ["class", "anger", "disgust"] and rows[3][0] == "fear"
    assert torch.tensor([list(map(float, row[1:])) for row in rows[1:]]).allclose(monitor.matrix)
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert [*logger.media[0]] == ["confusion", "epoch"]


def test_gates_are_those_of_the_block_right_and_wrong_apart(tmp_path):
    network, gates = Squeezed(), []
    monitor = ExcitationMonitor(["se"], confidence=0.15)
    trainer = fit(network, monitor, default_root_dir=tmp_path)
    network.se.gate.register_forward_hook(lambda module, args, output: gates.append(output))
    batch = clean_samples(trainer.datamodule, "val")
    chance, answer = network(batch.views[:, 0]).softmax(1).max(1)
    for kind, chosen in (("right", answer == batch.target), ("wrong", answer != batch.target)):
        mask = chosen & (chance > 0.15)
        assert 0 < mask.sum() < len(mask)
        means = gates[0][mask, :, 0, 0].mean(0)
        found = trainer.callback_metrics
        assert found[f"excitation/{kind}"] == pytest.approx(mask.float().mean())
        assert found[f"excitation/se/{kind}"] == pytest.approx(means.mean().item(), abs=1e-5)
        spread = means.std(correction=0).item()
        assert found[f"excitation/se/{kind}_spread"] == pytest.approx(spread, abs=1e-5)
    assert list(Path(tmp_path).glob("**/excitation/epoch_0000.png"))
    certain = fit(Squeezed(), ExcitationMonitor(["se"], 0.999), default_root_dir=tmp_path)
    assert certain.callback_metrics["excitation/right"] == 0
    assert "excitation/se/right" not in certain.callback_metrics


def test_gates_of_channels_that_are_zero_are_left_out(tmp_path):
    """One is so in all pictures, others in some."""
    network, data = Squeezed(), faces()
    network.se = nn.Sequential(nn.ReLU(), network.se)
    network.conv.requires_grad_(False)
    batch = clean_samples(data, "val")
    largest = network.conv(batch.views[:, 0]).amax((2, 3))
    network.conv.bias[0] -= largest[:, 0].max()
    network.conv.bias[1:4] -= largest[:, 1:4].median(0).values
    monitor = ExcitationMonitor(["se.1"], confidence=0.0)
    trainer = fit(network, monitor, data=data, default_root_dir=tmp_path)
    maps = network.conv(batch.views[:, 0]).relu()
    right = network.head(network.se(maps).square().mean((2, 3))).argmax(1) == batch.target
    known = maps.square().sum((2, 3)) > 1e-12
    assert not known[:, 0].any() and 0 < known[:, 1:4].sum() < known[:, 1:4].numel()
    x_se = maps.mean((2, 3), keepdim=True)
    block = network.se[1]
    gates = block.gate(block.fc2(block.act(block.bn(block.fc1(x_se)))))[..., 0, 0]
    for kind, chosen in (("right", right), ("wrong", ~right)):
        means = [
            gates[of & chosen, channel].mean()
            for channel, of in enumerate(known.T)
            if (of & chosen).any()
        ]
        assert len(means) < 8
        found = trainer.callback_metrics[f"excitation/se.1/{kind}"].item()
        assert found == pytest.approx(torch.stack(means).mean().item(), abs=1e-5)


def test_energy_is_a_ratio_of_shares():
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, 1, 1:3] = True
    maps = torch.rand(2, 4, 4)
    expected = [(m[1, 1:3].sum() / m.sum() / (2 / 16)).item() for m in maps.double()]
    assert energy_share(maps, masks).tolist() == pytest.approx(expected)
    assert energy_share(torch.ones(2, 4, 4), masks).tolist() == [1, 1]


def test_grad_cam_is_that_of_a_loop():
    pytest.importorskip("torchcam")
    network, inputs = Squeezed().double(), torch.randn(3, 1, 9, 9).double()
    found = grad_cam(network, "conv", [inputs], torch.tensor([1, 0, 6]))
    for image, number, of in zip(inputs, (1, 0, 6), found, strict=True):
        channels = network.conv(image[None]).detach().requires_grad_()
        network.head(network.se(channels).square().mean((2, 3)))[0, number].backward()
        weights = channels.grad.mean((2, 3), keepdim=True)
        small = (weights * channels).sum(1, keepdim=True).relu()
        expected = nn.functional.interpolate(small, (9, 9), mode="bilinear")[0, 0]
        torch.testing.assert_close(of.double(), expected, atol=1e-5, rtol=1e-4)
    assert all(one.grad is None for one in network.conv.parameters())


def test_a_layer_without_maps_is_named():
    pytest.importorskip("torchcam")
    rows = nn.Flatten(2)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), rows, nn.Flatten(), nn.Linear(196, 7))
    for layer, named in (("1", "'1'"), (rows, "a Flatten")):
        with pytest.raises(UserError, match=f"layer={named} gives no maps"):
            grad_cam(network, layer, [torch.randn(3, 1, 9, 9)], torch.tensor([1, 0, 6]))


@pytest.mark.parametrize("region", ["mouth", "brows"])
def test_maps_show_the_region_that_tells(region):
    pytest.importorskip("torchcam")
    data = FacesDataModule(size=32, samples=900, informative=[region], batch_size=32)
    network = AllCNN(width=8, in_channels=1, num_classes=7)
    monitor = RegionMonitor("conv6", samples=70)
    trainer = fit(network, monitor, data=data, max_epochs=8, check_val_every_n_epoch=8)
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    other = "lines" if region == "mouth" else "mouth"
    assert found[f"region/{region}/energy"] >= 2, found
    assert found[f"region/{other}/energy"] < found[f"region/{region}/energy"] / 1.5
    # Without it there is little left; without another much.
    assert found[f"region/{region}/without"] < found[f"region/{other}/without"] - 0.15


class Darkening(pytorch_lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = Squeezed()

    def forward(self, view: Tensor) -> Tensor:
        return self.network(view / 2)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch.views[:, 0]), batch.target)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def test_layers_are_named_in_the_network_where_its_module_is_measured(tmp_path):
    pytest.importorskip("torchcam")
    monitors = ExcitationMonitor(["se"], 0.0), RegionMonitor("conv", samples=70)
    trainer = quiet_trainer(*monitors, max_epochs=1, default_root_dir=tmp_path)
    trainer.fit(Darkening(), faces())
    assert {"excitation/se/wrong", "region/mouth/energy"} <= trainer.callback_metrics.keys()


class SixClasses(FacesDataModule):
    """Faces without one expression, in another order."""

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)
        part = self._images["test"]
        pixels, target = part.pixels[100:], part.target[100:] - 1
        self._images["test"] = part._replace(pixels=pixels, target=5 - target)
        self.class_names = FacesDataModule.class_names[:0:-1]
        self.splits["test"] = ("test", torch.arange(600))


def test_other_data_sets_are_tested_by_the_names_of_their_classes():
    network, six = Squeezed(), SixClasses(size=24, samples=70)
    trainer = fit(network, CrossDatasetMatrix({"own": faces(), "six": six}))
    batch = clean_samples(trainer.datamodule, "test")
    order = batch.index.argsort()
    batch = batch.map(lambda part: part[order])
    logits = network(batch.views[:, 0])
    own = (logits.argmax(1) == batch.target).float().mean()
    rest = (logits[100:, 1:].argmax(1) + 1 == batch.target[100:]).float().mean()
    assert trainer.callback_metrics["cross/own"] == pytest.approx(own.item())
    assert trainer.callback_metrics["cross/six"] == pytest.approx(rest.item())


@pytest.mark.parametrize(
    ("monitor", "message"),
    [
        (lambda: ExcitationMonitor(["conv"]), "'conv' .Conv2d., which does not scale each channel"),
        (lambda: ExcitationMonitor(["see"]), "names 'see', which the network does not have; did"),
        (lambda: ExcitationMonitor(["se"], confidence=1), "confidence=1 of ExcitationMonitor must"),
        (lambda: RegionMonitor("cov"), "names 'cov', which the network does not have; did"),
        (lambda: CrossDatasetMatrix({}), "datasets of CrossDatasetMatrix is empty"),
        (lambda: CrossDatasetMatrix({"a": 3}), "has 'a', a int"),
        (lambda: CrossDatasetMatrix({"a": DigitsDataModule()}), "has the class '0' and the target"),
        (lambda: CrossDatasetMatrix({"a": faces(size=32)}), "samples of 'a' .* have the shape"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_training(monitor, message):
    with pytest.raises(UserError, match=message):
        fit(Squeezed(), monitor())


@pytest.mark.parametrize("monitor", [ConfusionMatrixMonitor(), ExcitationMonitor(["se"])])
def test_mixed_labels_are_refused_by_the_dry_run(monitor):
    """At the first measurement, hours later, they would only fail."""
    numbers = torch.arange(2)
    example = Batch(torch.randn(2, 1, 1, 9, 9), torch.full((2, 7), 1 / 7), numbers - 2, numbers)
    with pytest.raises(UserError, match=r"needs one class a sample, but targets .* \[2, 7\]"):
        monitor.measure_example(Squeezed(), example)


def test_regions_and_maps_that_are_missing(monkeypatch):
    with pytest.raises(UserError, match="RegionMonitor needs data with regions"):
        fit(
            AllCNN(width=2, in_channels=1, num_classes=7),
            RegionMonitor("conv1"),
            data=DigitsDataModule(),
        )
    monkeypatch.setitem(sys.modules, "torchcam.methods", None)
    with pytest.raises(UserError, match=r"pip install 'critical-periods\[maps\]'"):
        fit(Squeezed(), RegionMonitor("conv"))


def test_a_study_gives_the_matrix_with_paired_intervals(tmp_path):
    sets = {
        name: {
            "class_path": "FacesDataModule",
            "init_args": {"size": 24, "samples": 70, "database": name},
        }
        for name in ("posed", "wild")
    }
    network = {
        "class_path": "AllCNN",
        "init_args": {"width": 2, "in_channels": 1, "num_classes": 7},
    }
    matrix = {"class_path": "CrossDatasetMatrix", "init_args": {"datasets": sets}}
    base = {
        "model.init_args.network": network, "model.init_args.num_classes": 7,
        "data": sets["posed"], "trainer.callbacks": [matrix],
    }  # fmt: skip
    study = {
        "windows": {"removal": [0], "epochs_after": 1}, "seeds": [0, 1],
        "deficit": {"class_path": "Blur"},
        "variants": {name: {"data": of} for name, of in sets.items()},
    }  # fmt: skip
    folder, plan = planned(tmp_path, study, base)
    worker.work(folder)
    written = write_report(folder, plan)
    assert {"cross.csv", "cross.png"} <= set(written)
    table = read_table(folder.path / "cross.csv")
    assert table[["variant", "tested"]].to_numpy().tolist() == [
        [one, other] for one in sets for other in sets
    ]
    own, other = table[table["tested"] == "wild"].itertuples(index=False)
    assert own.difference == pytest.approx(own.accuracy - other.accuracy, abs=1e-6)
    assert own.difference_low <= own.difference <= own.difference_high


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["cat", "dog"], ["cat", "dog"]), (("cat",), ["cat", "1"]), ([3, 7], ["3", "7"]),
        (None, ["0", "1"]), ("ab", ["0", "1"]), (["a", "b", "c"], ["0", "1"]),
    ],
)  # fmt: skip
def test_classes_are_called_as_the_data_calls_them(given, names):
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(class_names=given))
    assert class_names(trainer, 2) == names
