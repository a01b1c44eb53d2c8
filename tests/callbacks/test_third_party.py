"""Third parties' projects, which have never heard of this one and do what projects do."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from small_runs import Untrained, quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, TensorDataset

from critical_periods.callbacks import (
    DeficitWindow,
    FisherMonitor,
    FreezeWindow,
    SourceVarianceMonitor,
    UsableInformationMonitor,
    WeightInformationMonitor,
)
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.deficits import Blur, LabelPermutation, Occlusion
from critical_periods.metrics.functional import fisher_trace, usable_information

IMAGES = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(40) % 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where arrays go without a logger."""
    monkeypatch.chdir(tmp_path)


def loader(*tensors: Tensor, **settings: Any) -> DataLoader:
    return DataLoader(TensorDataset(*(tensors or (IMAGES, TARGET))), 8, **settings)


class Project(pl.LightningModule):
    """A linear classifier that stays as it is, unless it is given a rate."""

    def __init__(self, network: nn.Module | None = None, rate: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = network or nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        self.rate = rate

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


def fit(project: Any, *callbacks: Any, **settings: Any) -> dict[str, float]:
    loaders = [settings.pop(split, loader()) for split in ("train", "val")]
    trainer = quiet_trainer(*callbacks, **({"max_epochs": 1} | settings))
    trainer.fit(project, *loaders)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


# Deficits.


@pytest.mark.parametrize("validate", [False, True])
def test_validation_by_the_training_step_sees_what_validation_should(validate: bool):
    seen: list[tuple[str, int, float]] = []

    class OneStep(Project):
        def training_step(self, batch: Any, batch_idx: int, stage: str = "train") -> Any:
            seen.append((stage, self.current_epoch, batch[0].abs().mean().item()))
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.training_step(batch, batch_idx, "val")

    class Half(Occlusion):
        def degrade(self, images: Tensor, generator: Any = None) -> Tensor:
            return images / 2

    fit(OneStep(), DeficitWindow(Half(), 0, 1, validate=validate), max_epochs=2)
    size = IMAGES[:8].abs().mean().item()
    first = {(stage, epoch): value for stage, epoch, value in reversed(seen)}
    assert first["train", 0] == pytest.approx(size / 2)
    assert first["val", 0] == pytest.approx(size / 2 if validate else size)
    assert first["train", 1] == first["val", 1] == pytest.approx(size)


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ({"a": loader(), "b": loader()}, "trains on 2 at once; let one loader give all views"),
        (
            loader(torch.randn(16, 32, 32, 3), TARGET[:16]),
            r"look like \[B, H, W, C\]; move the col",
        ),
    ],
)
def test_loaders_without_images_to_edit_are_refused(train: Any, sentence: str):
    with pytest.raises(UserError, match=sentence):
        fit(Project(), DeficitWindow(Blur(2)), train=train)


def test_a_class_that_shows_up_late_gets_a_sentence():
    target = torch.cat([TARGET[:-1], torch.tensor([7])])
    project = Project(nn.Sequential(nn.Flatten(), nn.Linear(64, 8)))
    window = DeficitWindow(LabelPermutation(seed=1, num_classes=3))
    with pytest.raises(UserError, match=r"num_classes=3 of LabelPermutation .* reach 8 classes"):
        fit(project, window, train=loader(IMAGES, target))


# What is measured on.


class Scaled(Project):
    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch[0] * 10, batch[1]


class Augmented(Project):
    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return (batch[0] + 5 if self.trainer.training else batch[0]), batch[1]


@pytest.mark.parametrize(
    ("kind", "train", "val"), [(Scaled, IMAGES * 10, IMAGES * 10), (Augmented, IMAGES + 5, IMAGES)]
)
def test_samples_go_through_the_hooks_of_their_split(kind: Any, train: Tensor, val: Tensor):
    project = kind()
    logged = fit(project, FisherMonitor(samples=40), UsableInformationMonitor())
    expected, _ = fisher_trace(project.network, [train])
    assert logged["fisher/trace"] == pytest.approx(expected.item(), rel=1e-5)
    told = usable_information(project.network(val), TARGET)
    assert logged["information/both"] == pytest.approx(told.item(), rel=1e-5)


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from zip(IMAGES, TARGET, strict=True)


@pytest.mark.parametrize("val", [loader(), DataLoader(Endless(), 8)], ids=["finite", "endless"])
def test_no_more_is_measured_than_is_validated(val: DataLoader):
    project = Project()
    logged = fit(project, UsableInformationMonitor(), val=val, limit_val_batches=2)
    told = usable_information(project.network(IMAGES[:16]), TARGET[:16])
    assert logged["information/both"] == pytest.approx(told.item(), rel=1e-5)


class Noisy(Dataset):
    """Draws anew whenever it is read, as augmentation in workers does."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return IMAGES[place] + torch.randn(1, 8, 8), TARGET[place]


@pytest.mark.parametrize("workers", [0, 1])
def test_persistent_workers_draw_what_they_would_have_drawn(workers: int):
    def weights(*monitors: Any) -> Tensor:
        pl.seed_everything(0, workers=True, verbose=False)
        project = Project(rate=0.1)
        train = DataLoader(
            Noisy(), 8, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )
        fit(project, *monitors, train=train, max_epochs=3)
        return project.network[1].weight

    assert torch.equal(weights(), weights(FisherMonitor(samples=4)))


def test_samples_that_a_sampler_repeats_count_once():
    for rank in range(3):
        sampler = DistributedSampler(range(40), 3, rank, shuffle=False)  # type: ignore[arg-type]
        assert len(sampler) == 14  # of 40
        project = Project()
        logged = fit(project, UsableInformationMonitor(), val=loader(sampler=sampler))
        told = usable_information(project.network(IMAGES[rank::3]), TARGET[rank::3])
        assert logged["information/both"] == pytest.approx(told.item(), rel=1e-5)


# Before the first step.


class Tuple(nn.Sequential):
    def forward(self, view: Tensor) -> Any:
        return super().forward(view), view


class Branching(nn.Sequential):
    def forward(self, view: Tensor) -> Any:
        return super().forward(view) * (2 if view.isnan().any() else 1)


class Drawing(nn.Sequential):
    def forward(self, view: Tensor) -> Any:
        return super().forward(view) + torch.rand(3)


class Leaving(nn.Sequential):
    def forward(self, view: Tensor) -> Any:
        return torch.from_numpy(super().forward(view).detach().numpy()) + self[1].bias


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTM(8, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, view: Tensor) -> Any:
        return self.head(self.cell(view[:, 0])[0][:, -1])


def flat(kind: Any = nn.Sequential) -> Any:
    return kind(nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize(
    ("monitor", "network", "sentence"),
    [
        (UsableInformationMonitor, flat(Tuple), "network returned a <class 'tuple'> for 2 sam"),
        (WeightInformationMonitor, flat(Tuple), "network returned a <class 'tuple'> for 2 sam"),
        (FisherMonitor, flat(Tuple), "network returned a <class 'tuple'> for 2 samples"),
        (FisherMonitor, flat(Drawing), "cannot measure Project .* draws random .* torch.func"),
        (FisherMonitor, flat(Leaving), "cannot measure Project "),
    ],
)
def test_what_cannot_be_measured_is_found_before_the_first_step(
    monitor: Any, network: nn.Module, sentence: str
):
    with pytest.raises(UserError, match=sentence):
        fit(Project(network), Untrained(), monitor(split="train"))


@pytest.mark.parametrize("network", [flat(Branching), Recurrent()])
def test_what_vmap_cannot_measure_is_measured_sample_by_sample(network: nn.Module):
    logged = fit(Project(network), FisherMonitor(split="val", samples=4))
    wide, total = copy.deepcopy(network).double(), 0.0
    for view in IMAGES[:4].double():
        log_p = wide(view[None])[0].log_softmax(0)
        for one in log_p:
            grads = torch.autograd.grad(one, list(wide.parameters()), retain_graph=True)
            total += float(one.exp()) * sum(float(grad.square().sum()) for grad in grads) / 4
    assert logged["fisher/trace"] == pytest.approx(total, rel=1e-4)


def test_samples_of_different_shapes_are_measured_batch_by_batch_or_refused():
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))
    batches = [(IMAGES[:8], TARGET[:8]), (IMAGES[8:16, :, :6], TARGET[8:16])]
    val = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    assert "information/both" in fit(Project(network), UsableInformationMonitor(), val=val)
    with pytest.raises(UserError, match=r"such as \[1, 6, 8\] and \[1, 8, 8\], which are measured"):
        fit(Project(network), WeightInformationMonitor(split="val"), val=val)


def test_samples_without_classes_are_found_before_the_first_step():
    for monitor in (UsableInformationMonitor(split="train"), WeightInformationMonitor()):
        with pytest.raises(UserError, match="no target was found in a batch that is"):
            fit(Project(), Untrained(), monitor, train=loader(IMAGES))


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
        self.attention = nn.MultiheadAttention(8, 1, batch_first=True)
        self.sequence = nn.Identity()
        self.head = nn.Linear(16, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        both = torch.stack([self.encoder(left), self.encoder(right)], 1)
        both, _ = self.attention(both, both, both)
        return self.head(self.sequence(both.transpose(0, 1)).transpose(0, 1).flatten(1))


class Pairs(Project):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.network(*batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        ("encoder", "which the network has but calls 2 times in a forward pass"),
        ("attention", "the layer 'attention' puts out a tuple, not a tensor"),
    ],
)
def test_layers_whose_units_are_not_one_per_sample(layer: str, sentence: str):
    pairs = DataLoader([((one, one), y) for one, y in zip(IMAGES, TARGET, strict=True)], 8)
    with pytest.raises(UserError, match=sentence):
        fit(Pairs(Siamese()), SourceVarianceMonitor([layer]), train=pairs, val=pairs)


def test_units_come_after_the_samples():
    monitor = SourceVarianceMonitor(["sequence"])
    batch = torch.zeros(3, 1, 8, 8)
    example = Batch(torch.stack([batch, batch], 1), TARGET[:3], TARGET[:3], TARGET[:3])
    with pytest.raises(UserError, match=r"puts out \[2, 3, 8\] for 3 samples, which have to come"):
        monitor.dry_run(Project(Siamese()), example)


# Beside others.


@pytest.mark.parametrize("kind", [FisherMonitor, UsableInformationMonitor])
def test_two_monitors_of_a_kind_would_log_one_number(kind: Any):
    with pytest.raises(UserError, match=f"class {kind.__name__} would log under the same names"):
        fit(Project(), kind(split="train"), kind(split="val"))


def test_monitors_of_other_layers_go_together():
    class TwoLayers(Siamese):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Sequential(nn.Linear(16, 5), nn.Linear(5, 3))  # type: ignore[assignment]

    def run(*layers: list[str]) -> dict[str, float]:
        monitors = [SourceVarianceMonitor(names, samples=8, pairs=3) for names in layers]
        pairs = DataLoader([((one, one), y) for one, y in zip(IMAGES, TARGET, strict=True)], 8)
        return fit(Pairs(TwoLayers()), *monitors, train=pairs, val=pairs)

    assert {"rsv/head.0/mean", "rsv/head/mean"} <= run(["head.0"], ["head"]).keys()
    (file,) = Path("rsv").iterdir()
    assert {"head.0/units", "head/units"} <= {*np.load(file)}
    with pytest.raises(UserError, match="SourceVarianceMonitor would log under the same names"):
        run(["head.0"], ["head", "head.0"])


@pytest.mark.parametrize(("every_n_epochs", "refused"), [(None, True), (10, True), (1, False)])
def test_early_stopping_does_not_hide_the_last_epoch(every_n_epochs: int | None, refused: bool):
    def run(**stops: Any) -> dict[str, float]:
        stopper = EarlyStopping("val/loss", patience=1, **stops)
        return fit(Project(), FisherMonitor(every_n_epochs, samples=8), stopper, max_epochs=9)

    assert "fisher/trace" in run(check_on_train_epoch_end=False)
    if not refused:
        assert "fisher/trace" in run()
        return
    with pytest.raises(UserError, match="set check_on_train_epoch_end of EarlyStopping to False"):
        run()


def test_steps_that_overshoot_the_last_are_the_last():
    class Two(Project):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
                self.manual_backward(super().training_step(batch, batch_idx))
                optimizer.step()

        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1) for _ in range(2)]

    monitor = FisherMonitor(every_n_epochs=None, samples=8)
    assert "fisher/trace" in fit(Two(), monitor, max_epochs=-1, max_steps=5)


class Stateful(nn.Module):
    """Makes tensors of the default kind, as recurrent networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.back, self.out = nn.Linear(64, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, view: Tensor) -> Tensor:
        state = torch.zeros(len(view), 8, device=view.device)
        return self.out(torch.tanh(self.back(state) + self.inside(view.flatten(1))))


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "bf16-mixed"])
def test_networks_that_make_tensors_are_measured_in_any_precision(precision: Any):
    monitors = FisherMonitor(samples=8), UsableInformationMonitor()
    logged = fit(Project(Stateful()), *monitors, precision=precision)
    assert logged["fisher/trace"] > 0 and torch.get_default_dtype() == torch.float32


def test_networks_that_are_built_late():
    class Late(Project):
        def __init__(self) -> None:
            super().__init__()
            self.network = None  # type: ignore[assignment]

        def configure_model(self) -> None:
            if self.network is None:
                self.network = flat()

    monitors = WeightInformationMonitor(samples=8, steps=2), FisherMonitor(samples=8)
    before = copy.deepcopy(Late())
    logged = fit(before, FreezeWindow(["1"]), *monitors)
    assert {"information/weights", "fisher/trace", "deficit/active"} <= logged.keys()
