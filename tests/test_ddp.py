"""Two processes train as one: the same global batches, weights and measures."""

import functools
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from processes import WORLD, join_processes, start_processes
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.callbacks import (
    BiasReset,
    DeficitWindow,
    DormantUnitReset,
    FisherMonitor,
    GradualChange,
    InitialWeightDecay,
    LayerReset,
    LearningRateRestart,
    Patching,
    RateChange,
    ReconstructionMonitor,
    RegularizationWindow,
    ShrinkPerturb,
    SourceVarianceMonitor,
    SourceWindow,
    SubsetWindow,
    UsableInformationMonitor,
    WeightInformationMonitor,
)
from critical_periods.data import MovingDigitsDataModule, StereoDigitsDataModule
from critical_periods.deficits import Blur, GaussianNoise
from critical_periods.models import MultiViewTransformer
from critical_periods.tasks import ClassificationTask, MaskedReconstructionTask
from critical_periods.tasks.transformer_recipe import TransformerRecipe

METRICS = ("train/loss", "val/loss", "val/accuracy", "deficit/active")
MEASURES = (
    "rsv/head/mean", "rsv/head/polarization", "fisher/trace", "fisher/trace/pathways.0.0",
    "fisher/trace/head", "information/both", "information/view_0", "information/view_1",
    "information/weights",
)  # fmt: skip


class TwoEyes(nn.Module):
    """Two pathways without batch norm, whose statistics would be those of half a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.pathways = nn.ModuleList(
            nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.Tanh()) for _ in range(2)
        )
        self.head = nn.Linear(8 * 49, 10)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head((self.pathways[0](left) + self.pathways[1](right)).flatten(1))


def fit(folder: Path, name: str, processes: int, resume: str | None = None, **window: Any) -> None:
    """Trains, and has the first process write weights and metrics down."""
    pl.seed_everything(3, verbose=False)
    task = ClassificationTask(
        TwoEyes(), optimizer=functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    )
    # 302 samples: the last global batch has 46, and two processes get 23 each. The 797 to validate
    # on are shared unevenly.
    data = StereoDigitsDataModule(
        batch_size=64 // processes, limit_train=302, mask_probability=0.1, augment="per_view"
    )
    saver = ModelCheckpoint(folder / name, filename="{epoch}", save_top_k=-1)
    trainer = quiet_trainer(
        DeficitWindow(**window), saver,
        # Numbers that two processes cannot share evenly.
        SourceVarianceMonitor(["head"], samples=51, pairs=5),
        FisherMonitor(every_n_epochs=None, samples=37, num_draws=2),
        UsableInformationMonitor(every_n_epochs=None),
        WeightInformationMonitor(every_n_epochs=None, samples=33, steps=5),
        devices=processes, strategy="ddp" if processes > 1 else "auto", max_epochs=3,
        default_root_dir=folder, enable_checkpointing=True,
    )  # fmt: skip
    checkpoint = None if resume is None else folder / resume
    trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        metrics = {key: trainer.callback_metrics[key] for key in METRICS + MEASURES}
        torch.save({"weights": task.state_dict(), "metrics": metrics}, folder / f"{name}.pt")


class ThirdParty(pl.LightningModule):
    """Somebody's module; keeps what its steps receive."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 2)
        self.received: list[Tensor] = []

    def training_step(self, batch: Any) -> Tensor:
        self.received.append(batch[0])
        return self.head(batch[0].flatten(1)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit_third_party(folder: Path, rank: int) -> None:
    pl.seed_everything(3, verbose=False)
    module = ThirdParty()
    loader = DataLoader(TensorDataset(torch.ones(8, 3, 2, 2), torch.arange(8)), batch_size=2)
    window = DeficitWindow(GaussianNoise(), onset=1)
    quiet_trainer(window, max_epochs=2, devices=WORLD, strategy="ddp").fit(module, loader)
    received = torch.stack(module.received)
    result = {"received": received, "weight": module.head.weight.detach()}
    torch.save(result, folder / f"third_party_{rank}.pt")


def fit_narrow_epochs(folder: Path, name: str, resume: str | None = None) -> None:
    """Trains on a subset, then on other data, and keeps which samples each process has seen."""
    pl.seed_everything(3, verbose=False)
    indices: list[tuple[int, list[int]]] = []

    class Spy(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
            indices.append((trainer.current_epoch, batch.index.tolist()))

    optimizer = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.02)
    schedule = functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.8)
    task = ClassificationTask(TwoEyes(), optimizer=optimizer, lr_scheduler=schedule)
    saver = ModelCheckpoint(folder / name, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    trainer = quiet_trainer(
        SubsetWindow(0.41, 1, 3), RegularizationWindow("weight_decay", removal=2),
        LearningRateRestart(3), SourceWindow(narrow_data(60), 4), Spy(), saver,
        max_epochs=5, devices=WORLD, strategy="ddp", enable_checkpointing=True,
    )  # fmt: skip
    checkpoint = None if resume is None else folder / resume
    trainer.fit(task, narrow_data(), ckpt_path=checkpoint, weights_only=True)
    result = {"weights": task.state_dict(), "indices": indices, "steps": trainer.global_step}
    torch.save(result, folder / f"{name}_{trainer.global_rank}.pt")


class Deep(TwoEyes):
    """With units that one next layer alone takes."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(8 * 49, 24), nn.ReLU(), nn.Linear(24, 10))


def fit_remedied(folder: Path, name: str, processes: int, resume: str | None = None) -> None:
    """Trains with all remedies, from epoch 1 on."""
    pl.seed_everything(3, verbose=False)
    optimizer = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
    schedule = functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.8)
    task = ClassificationTask(Deep(), optimizer=optimizer, lr_scheduler=schedule)
    saver = ModelCheckpoint(folder / name, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    data, source = (
        StereoDigitsDataModule(batch_size=32 // processes, limit_train=images, width=16)
        for images in (96, 64)
    )
    trainer = quiet_trainer(
        ShrinkPerturb(0.9, 0.01, onset=1, removal=3, every_n_epochs=2), LayerReset(["head.2"], 1),
        DormantUnitReset(0.9, onset=1, every_n_epochs=1), InitialWeightDecay(0.1, 1, 3),
        Patching(onset=1, removal=3), BiasReset(0.01, 2), RateChange(2.0, 2),
        LearningRateRestart(1), SourceWindow(source, 0, 1), GradualChange(1, 3), saver,
        max_epochs=4, devices=processes, strategy="ddp" if processes > 1 else "auto",
        enable_checkpointing=True,
    )  # fmt: skip
    checkpoint = None if resume is None else folder / resume
    trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
    torch.save({"weights": task.state_dict()}, folder / f"{name}_{trainer.global_rank}.pt")


def narrow_data(images: int = 100) -> StereoDigitsDataModule:
    return StereoDigitsDataModule(batch_size=10, limit_train=images, width=16)


def fit_masked(folder: Path, name: str, processes: int) -> None:
    pl.seed_everything(3, verbose=False)
    # As in kinetics_masked_mini.yaml: 9 of 18 patches are seen, often all of them in one view,
    # which counts for nothing, so that processes have different numbers of samples that count.
    task = MaskedReconstructionTask(
        MultiViewTransformer(width=16, depth=2, heads=2, patch=8, image_size=24, in_channels=1),
        TransformerRecipe(epochs=2, base_rate=0.01, warmup_epochs=1),
        mask_ratio=0.5, decoder_width=8, decoder_depth=1, decoder_heads=2, pictures=0,
    )  # fmt: skip
    # 250 samples give a short last batch, and the 101 to validate on are shared unevenly.
    moving = MovingDigitsDataModule(batch_size=128 // processes, limit_train=250, val_split=101)
    strategy = "ddp" if processes > 1 else "auto"
    monitor = ReconstructionMonitor(every_n_epochs=None, samples=51)
    trainer = quiet_trainer(
        monitor, devices=processes, strategy=strategy, max_epochs=2,
        default_root_dir=folder / name,
    )  # fmt: skip
    trainer.fit(task, moving)
    if trainer.is_global_zero:
        metrics = {key: value.item() for key, value in trainer.callback_metrics.items()}
        torch.save({"weights": task.state_dict(), "metrics": metrics}, folder / f"{name}.pt")


BLUR: dict[str, Any] = {"deficit": Blur(views=[1]), "removal": 2}
NOISE: dict[str, Any] = {"deficit": GaussianNoise(views=[0]), "onset": 1}


def run_process(rank: int, folder: Path) -> None:
    fit(folder, "two", WORLD, **BLUR)
    fit(folder, "noise", WORLD, **NOISE)
    fit(folder, "resumed", WORLD, "noise/epoch=1.ckpt", **NOISE)
    fit_third_party(folder, rank)
    fit_narrow_epochs(folder, "narrow")
    for step in (6, 9, 15):
        fit_narrow_epochs(folder, f"narrow_from_{step}", f"narrow/step={step}.ckpt")
    fit_masked(folder, "masked_two", WORLD)
    fit_remedied(folder, "remedied", WORLD)
    for step in (4, 7):
        fit_remedied(folder, f"remedied_from_{step}", WORLD, f"remedied/step={step}.ckpt")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ddp")
    context = start_processes(run_process, folder)
    fit(folder, "one", 1, **BLUR)
    fit_masked(folder, "masked_one", 1)
    fit_remedied(folder, "remedied_one", 1)
    join_processes(context)
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


def test_two_processes_end_with_the_weights_of_one(results):
    one, two = results["one"]["weights"], results["two"]["weights"]
    torch.manual_seed(0)
    start = TwoEyes().state_dict()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=2e-6)
        assert (weight - start[name.removeprefix("network.")]).abs().max() > 1e-2


def test_two_processes_log_the_metrics_of_one(results):
    one, two = results["one"]["metrics"], results["two"]["metrics"]
    assert one["val/accuracy"] == two["val/accuracy"] > 0.3
    for key in ("train/loss", "val/loss"):
        torch.testing.assert_close(two[key], one[key], rtol=1e-5, atol=0)
    assert one["deficit/active"] == two["deficit/active"] == 0
    assert results["noise"]["metrics"]["deficit/active"] == 1


@pytest.mark.parametrize("key", MEASURES)
def test_two_processes_measure_what_one_does(results, key):
    one, two = results["one"]["metrics"][key], results["two"]["metrics"][key]
    assert one.isfinite() and one.abs() > 1e-3
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


def test_two_processes_resume_to_the_bit(results):
    whole, resumed = results["noise"]["weights"], results["resumed"]["weights"]
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    assert not torch.equal(
        whole["network.head.weight"], results["two"]["weights"]["network.head.weight"]
    )


def test_third_parties_processes_draw_noise_of_their_own(results):
    first, second = results["third_party_0"], results["third_party_1"]
    for rank in (first, second):
        clean, noisy = rank["received"].chunk(2)  # the two epochs
        assert clean.shape == (2, 2, 3, 2, 2) and (clean == 1).all() and (noisy != 1).all()
    draws = torch.cat([rank["received"].chunk(2)[1].flatten(0, 1) for rank in (first, second)])
    assert len(draws.flatten().unique()) == draws.numel()
    assert torch.equal(first["weight"], second["weight"])


def test_two_processes_share_a_subset_and_resume_to_the_bit(results):
    two, other = results["narrow_0"], results["narrow_1"]
    # 41 images, of which two processes share 40 equally: 2 batches; of the other data 3.
    assert two["steps"] == 5 + 2 + 2 + 5 + 3
    for (epoch, mine), (same, others) in zip(two["indices"], other["indices"], strict=True):
        assert epoch == same and len(mine) == len(others) == 10 and not set(mine) & set(others)
    data = narrow_data()
    data.setup()
    chosen = {i for run in (two, other) for e, index in run["indices"] if e == 1 for i in index}
    assert len(chosen) == 40 and chosen < set(data.train_subset(0.41).tolist())
    for step in (6, 9, 15):
        resumed = results[f"narrow_from_{step}_0"]
        assert resumed["indices"] == two["indices"][step:], f"step {step}"
        for name, weight in two["weights"].items():
            assert torch.equal(resumed["weights"][name], weight), f"step {step}: {name}"


def test_two_processes_are_remedied_as_one_and_resume_to_the_bit(results):
    whole, one = results["remedied_0"]["weights"], results["remedied_one_0"]["weights"]
    for name, weight in whole.items():
        torch.testing.assert_close(weight, one[name], rtol=1e-4, atol=1e-5)
        for other in ("remedied_1", *(f"remedied_from_{step}_0" for step in (4, 7))):
            assert torch.equal(results[other]["weights"][name], weight), f"{other}: {name}"


def test_two_processes_reconstruct_as_one(results):
    one, two = results["masked_one"], results["masked_two"]
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
    for name, weight in one["weights"].items():
        # No loss depends on a key's bias: AdamW makes steps of the rounding of its zero gradient.
        if not name.endswith(("qkv.bias", "decoder.kv.bias")):
            torch.testing.assert_close(two["weights"][name], weight, atol=1e-4, rtol=1e-3)
