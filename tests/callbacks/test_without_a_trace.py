"""Training with all monitors on has the bits of training without them, whatever keeps state."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from small_runs import Untrained, quiet_trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, Sampler, Subset
from torchvision import tv_tensors

from critical_periods.callbacks import (
    DeficitWindow,
    FisherMonitor,
    SourceVarianceMonitor,
    UsableInformationMonitor,
    WeightInformationMonitor,
)
from critical_periods.callbacks.kept_batches import KeptBatches
from critical_periods.core.errors import UserError
from critical_periods.deficits import Blur
from critical_periods.metrics.functional import fisher_trace, usable_information

LEFT, RIGHT = torch.randn(2, 24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(24) % 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where arrays go without a logger."""
    monkeypatch.chdir(tmp_path)


class Pairs(Dataset):
    """Two views and a target; ``noise`` draws what is added to a view."""

    def __init__(self, noise: Any = lambda: 0.0) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return len(TARGET)

    def __getitem__(self, place: int) -> Any:
        return (LEFT[place] + self.noise(), RIGHT[place] + self.noise()), TARGET[place]


class OfNumPy:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __call__(self) -> Any:
        return float(self.generator.normal())


class Counting:
    """Says how often it was asked, as a curriculum does."""

    calls = 0

    def __call__(self) -> float:
        self.calls += 1
        return self.calls / 100


class CountingSampler(Sampler):
    """Another order each time that it is asked for one."""

    epoch = 0

    def __len__(self) -> int:
        return len(TARGET)

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(self.epoch))
        return iter(order.tolist())


class OnePass(IterableDataset):
    """A stream that can be read but once."""

    def __init__(self) -> None:
        pairs = Pairs()
        self.stream = (pairs[place % 24] for place in range(40))

    def __iter__(self) -> Iterator[Any]:
        return self.stream


class Locked(Pairs):
    """A data set that cannot be copied, with a generator of its own."""

    def __init__(self) -> None:
        super().__init__(OfNumPy())
        self.file = open(__file__)  # noqa: SIM115


def flat(batch: Any) -> list[Tensor]:
    return [*batch[0], batch[1]]


def loader(data: Any, **settings: Any) -> DataLoader:
    return DataLoader(data, 8, **settings)


def halves(kind: Any) -> tuple[Any, Any]:
    """Training and validation on parts of one data set."""
    data = kind()
    parts = Subset(data, range(16)), Subset(data, range(16, 24))
    return loader(parts[0], shuffle=True), loader(parts[1])


# Loaders of training and validation that keep state, each kind in its own way.
KINDS: dict[str, Any] = {
    "NumPy generator": lambda: halves(lambda: Pairs(OfNumPy())),
    "counting transform": lambda: halves(lambda: Pairs(Counting())),
    "cannot be copied": lambda: halves(Locked),
    "counting sampler": lambda: (loader(Pairs(), sampler=CountingSampler()), loader(Pairs())),
    "sampler with a generator": lambda: (
        loader(Pairs(), sampler=RandomSampler(range(24), generator=torch.Generator())),
        loader(Pairs(), shuffle=True, generator=torch.Generator()),
    ),
    "one pass": lambda: (loader(OnePass()), loader(Pairs())),
    "global draws": lambda: (
        loader(Pairs(lambda: np.random.normal() + torch.randn(())), shuffle=True),
        loader(Pairs()),
    ),
    "persistent workers": lambda: (
        loader(Pairs(OfNumPy()), num_workers=1, persistent_workers=True, shuffle=True),
        loader(Pairs(OfNumPy()), num_workers=1, persistent_workers=True),
    ),
}


class Network(nn.Module):
    """Remembers its calls in every way a forward pass can."""

    def __init__(self) -> None:
        super().__init__()
        self.eye, self.norm, self.head = nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("moving", torch.zeros(6))
        self.calls, self.log, self.seen = 0, [], {}  # type: ignore[var-annotated]
        self.generator = np.random.default_rng(0)
        self.norm.register_forward_hook(lambda module, args, output: self.log.append(output))

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        self.calls += 1
        self.steps = self.steps + 1
        both = self.eye(left.flatten(1)) + self.eye(right.flatten(1)) * self.generator.normal()
        self.features = self.norm(both)
        with torch.no_grad():
            self.moving.mul_(0.9)
        self.seen["last"] = self.features
        return self.head(self.features + self.steps / 100 + self.moving)


class Project(pl.LightningModule):
    def __init__(self, network: Any = Network) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = network()
        self.received: list[Any] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.received.append([part.clone() for part in flat(batch)])
        return F.cross_entropy(self.network(*batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


def monitors(split: str, layer: str = "norm") -> list[Any]:
    return [
        FisherMonitor(1, split, samples=12),
        WeightInformationMonitor(1, split, samples=10, steps=1),
        UsableInformationMonitor(1, split, samples=9),
        SourceVarianceMonitor([layer], 1, split, samples=6, pairs=3),
    ]


def fit(project: Any, loaders: Any, *callbacks: Any, ckpt_path: Any = None, **settings: Any) -> Any:
    trainer = quiet_trainer(*callbacks, **({"max_epochs": 3} | settings))
    trainer.fit(project, *loaders, ckpt_path=ckpt_path)
    return trainer


def trained(kind: str, *callbacks: Any) -> Any:
    pl.seed_everything(1, workers=True, verbose=False)
    project = Project()
    fit(project, KINDS[kind](), *callbacks)
    return project


@pytest.mark.parametrize("kind", KINDS)
def test_all_monitors_leave_the_bits_alone(kind: str):
    alone = trained(kind)
    for split in ("train", "val"):
        watched = trained(kind, *monitors(split))
        assert len(watched.received) == len(alone.received) > 3
        pairs = zip(watched.received, alone.received, strict=True)
        assert all(torch.equal(a, b) for got, was in pairs for a, b in zip(got, was, strict=True))
        states = watched.state_dict(), alone.state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])
        network, other = watched.network, alone.network
        assert network.calls == other.calls == len(network.log) == len(other.log)
        assert torch.equal(network.features, other.features) and network.features.requires_grad
        assert network.seen["last"] is network.features
        assert network.generator.bit_generator.state == other.generator.bit_generator.state


class Once(DataLoader):
    """Counts how often it is asked for its batches."""

    asked = 0

    def __iter__(self) -> Any:
        self.asked += 1
        return super().__iter__()


class Sum(nn.Sequential):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return super().forward(left + right)


def plain(layer: nn.Module | None = None) -> Any:
    """A network of the same batches that keeps nothing."""
    return Sum(nn.Flatten(), layer or nn.Linear(64, 3))


class Values(pl.Callback):
    """What was logged in each epoch under a name."""

    def __init__(self, name: str) -> None:
        self.name, self.found = name, []  # type: ignore[var-annotated]

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.found.append(trainer.callback_metrics[self.name].item())


class MixedUp(Project):
    """Mixes samples up on the way to the device, and would be spoilt by a deficit in place."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        (left, right), target = batch
        return (0.5 * (left + left.flip(0)), right), target


def test_what_goes_by_in_the_first_epoch_is_measured_each_time():
    """Without the deficit that is open, as transferred, and from one pass an epoch."""
    project, window = MixedUp(plain), DeficitWindow(Blur(4), 0, 3)
    train, values = Once(Pairs(OfNumPy()), 8), Values("fisher/trace")
    project.configure_optimizers = lambda: torch.optim.SGD(project.parameters(), 0.0)  # type: ignore[method-assign]
    fit(project, [train], window, FisherMonitor(samples=12), values)
    assert train.asked == 3
    clean = loader(Pairs(OfNumPy()))
    batches = [flat(MixedUp.on_after_batch_transfer(project, batch, 0)) for batch in clean]
    left, right = (torch.cat([batch[view] for batch in batches])[:12] for view in (0, 1))
    expected, _ = fisher_trace(project.network, [left, right])
    assert values.found == pytest.approx([expected.item()] * 3, rel=1e-5)


@pytest.mark.parametrize("step", [2, 3, 4], ids=["in the first epoch", "after it", "later"])
def test_a_run_that_goes_on_measures_what_it_would_have_measured(tmp_path: Path, step: int):
    def run(train: Any, **settings: Any) -> tuple[Any, list[float]]:
        """A few samples of the first epoch, and all of it."""
        project, values = Project(plain), [Values("fisher/trace"), Values("information/both")]
        both = FisherMonitor(samples=12), UsableInformationMonitor(split="train")
        fit(project, [train], *both, *callbacks, *values, **settings)
        return project, [one.found[-1] for one in values]

    callbacks = [pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=step, save_top_k=-1)]
    run(loader(Pairs(OfNumPy())), enable_checkpointing=True)
    path, callbacks = min(tmp_path.iterdir(), key=str), []
    # Goes on with other noise, which only samples that were not yet kept have.
    project, values = run(loader(Pairs(Counting())), ckpt_path=path)
    first = [flat(batch) for batch in loader(Pairs(OfNumPy()))]
    if step == 2:
        first[2] = project.received[0]
    left, right, target = (torch.cat([batch[part] for batch in first]) for part in range(3))
    expected = fisher_trace(project.network, [left[:12], right[:12]])[0].item()
    told = usable_information(project.network(left, right), target).item()
    assert values == pytest.approx([expected, told], rel=1e-5)


# What is refused before the first step, in a sentence.


class TakesIterator(Project):
    def training_step(self, dataloader_iter: Any) -> Tensor:
        return torch.zeros((), requires_grad=True)


REFUSED: dict[str, Any] = {
    "no end": (
        Project, lambda: loader(OnePass()), UsableInformationMonitor(split="train"),
        "samples=None of UsableInformationMonitor would keep every batch .* there are no end",
    ),
    "too much": (
        Project, lambda: loader(Pairs()), SourceVarianceMonitor(["1"], reestimate_batch_norm=True),
        r"reestimate_batch_norm=True of .* 3 batches, \d+ MiB, where .*; set it to false",
    ),
    "no validation yet": (
        Project, lambda: loader(Pairs()), UsableInformationMonitor(),
        "'val' after 1 epochs, but it is read only in validation, first after 2, as its",
    ),
    "no batch goes by": (
        TakesIterator, lambda: loader(Pairs()), FisherMonitor(),
        "TakesIterator takes dataloader_iter, so no batch goes by that could be measured",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_kept(kind: str, monkeypatch: pytest.MonkeyPatch):
    module, train, monitor, sentence = REFUSED[kind]
    monkeypatch.setattr("critical_periods.callbacks.kept_batches._MOST", 1000)
    with pytest.raises(UserError, match=sentence):
        settings = {"check_val_every_n_epoch": 2}
        fit(module(plain), (train(), loader(Locked())), Untrained(), monitor, **settings)


def test_a_stream_that_has_come_to_its_end():
    data = OnePass()
    list(data.stream)
    with pytest.raises(UserError, match="split='train' has given no sample that could be measured"):
        fit(Project(plain), [loader(data)], FisherMonitor())


def test_fewer_samples_than_asked_for_are_said():
    with pytest.warns(UserWarning, match="measure the 24 samples that an epoch .* samples=200"):
        fit(Project(plain), [loader(Pairs())], FisherMonitor(), max_epochs=1)


def test_what_a_forward_logs_is_of_training_alone():
    class Logging(Project):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            output = self.model(left, right)
            self.log("mean", output.mean(), on_epoch=True)
            self.log_dict({"largest": output.max()}, on_epoch=True)
            return output

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self(*batch[0]), batch[1])

    logged = []
    for watching in ([], monitors("train", "model.1")):
        project = Logging(plain)
        project.model = project._modules.pop("network")
        trainer = fit(project, [loader(Pairs())], *watching)
        names = ("mean_epoch", "largest_epoch")
        logged.append([trainer.callback_metrics[name] for name in names])
        assert "log" not in vars(project)
    assert logged[0] == logged[1]


def test_processes_keep_their_own_and_each_finds_it_again(monkeypatch: pytest.MonkeyPatch):
    def place(rank: int, world_size: int = 2) -> Any:
        names = {"global_rank": rank, "world_size": world_size, "is_global_zero": rank == 0}
        return SimpleNamespace(**names, current_epoch=0)

    def gather(parts: list[Any], own: Any) -> None:
        parts[:] = [one.batches for one in kept]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    kept = [KeptBatches(), KeptBatches()]
    for rank, one in enumerate(kept):
        one.wanted = 7
        for number in range(3):
            one.add(place(rank), {"x": torch.full((2, 1), 10 * rank + number)}, 2, share=4 - rank)
        assert one.state(place(rank)) is None  # not before all have theirs
    for rank, one in enumerate(kept):
        one.complete(place(rank))
        assert one.samples == 4 and one.is_complete
    state = kept[0].state(place(0))
    assert state is not None and kept[1].state(place(1)) is None
    for rank, one in enumerate(kept):
        again = KeptBatches()
        again.load(place(rank), state)
        assert [b["x"].tolist() for b in again.batches] == [b["x"].tolist() for b in one.batches]
        assert again.is_complete and again.state(place(0)) is not None
        # Dealt out among others, they are kept anew.
        alone = KeptBatches()
        alone.load(place(0, 1), state)
        assert not alone.batches and not alone.is_complete


def test_networks_without_shapes_yet_are_tried_on_a_copy():
    """Else the dry run would draw their first weights out of turn."""

    def weights(*callbacks: Any) -> Tensor:
        pl.seed_everything(1, verbose=False)
        project = Project(lambda: plain(nn.LazyLinear(3)))
        fit(project, [loader(Pairs())], *callbacks, max_epochs=1)
        return project.network[1].weight

    monitors = FisherMonitor(samples=8), UsableInformationMonitor(split="train", samples=8)
    assert torch.equal(weights(), weights(*monitors))


# Tensors of other kinds.


class Labelled(Tensor):
    """As those of MONAI: knows what it is of, and no transform of torch.func knows it."""

    @staticmethod
    def __new__(cls, values: Tensor, of: str) -> Any:
        made = values.as_subclass(cls)
        made.of = of
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in ("vmap", "_add_batch_dim", "stack"):
            raise TypeError("not of this kind")
        return super().__torch_function__(func, types, args, kwargs or {})


KINDS_OF_TENSOR: dict[str, Any] = {
    "plain": lambda images: images,
    "channels last": lambda images: images.to(memory_format=torch.channels_last),
    "transposed": lambda images: images.transpose(2, 3).contiguous().transpose(2, 3),
    "tv_tensors": tv_tensors.Image,
    "labelled": lambda images: Labelled(images, "an eye"),
}


@pytest.mark.parametrize("kind", KINDS_OF_TENSOR)
def test_a_deficit_keeps_contiguity_and_type(kind: str):
    """Two views of any kind, which all monitors measure as plain tensors."""

    class Kinds(Project):
        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return [KINDS_OF_TENSOR[kind](view.repeat(1, 3, 1, 1)) for view in batch[0]], batch[1]

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.received.append(batch[0][0])
            seen = [view.reshape(len(view), -1) for view in batch[0]]
            return F.cross_entropy(self.network[1](seen[0] + seen[1]), batch[1])

    project, loaders = Kinds(lambda: plain(nn.Linear(192, 3))), (loader(Pairs()), loader(Pairs()))
    fit(project, loaders, DeficitWindow(Blur(2), 1), *monitors("train", "1"), max_epochs=2)
    clean, blurred = project.received[0], project.received[3]
    assert type(blurred) is type(clean) and blurred.stride() == clean.stride()
    assert vars(blurred) == vars(clean)
    expected = Blur(2).degrade(clean.as_subclass(Tensor))
    assert torch.equal(blurred.as_subclass(Tensor), expected)


# Compiled networks.


class Compiled(pl.LightningModule):
    """A classifier of two views, of which some part is compiled by a backend that counts."""

    def __init__(self, how: str, backend: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how, self.options = how, {"backend": backend}
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(128, 6), nn.BatchNorm1d(6))
        self.head = nn.Linear(6, 3)
        if how == "part":
            self.model = torch.compile(self.model, **self.options)
        if how == "in place":
            self.model.compile(**self.options)
        if how == "step":
            self.training_step = torch.compile(self.training_step, **self.options)
        if how == "network":
            self.network = torch.compile(Joined(self.model, self.head), **self.options)

    def configure_model(self) -> None:
        if self.how == "configure_model":
            self.model = torch.compile(self.model, **self.options)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        if self.how == "network":
            return self.network(left, right)
        return self.head(self.model(torch.stack([left, right], 1)))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self(*batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self(*batch[0])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Joined(nn.Module):
    def __init__(self, model: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(self.model(torch.stack([left, right], 1)))


@pytest.mark.parametrize(
    "how", ["part", "in place", "step", "network", "configure_model", "whole module"]
)
def test_compiled_code_runs_at_every_step_and_is_never_compiled_anew(how: str):
    def run(*callbacks: Any) -> tuple[list[int], Any, list[Tensor]]:
        calls: list[int] = []

        def backend(graph: Any, inputs: Any) -> Any:
            number = len(calls)
            calls.append(0)

            def call(*args: Any) -> Any:
                calls[number] += 1
                return graph.forward(*args)

            return call

        torch._dynamo.reset()
        module: Any = Compiled(how, backend)
        pl.seed_everything(1, verbose=False)
        compiled = torch.compile(module, backend=backend) if how == "whole module" else module
        trainer = fit(compiled, (loader(Pairs()), loader(Pairs())), *callbacks, max_epochs=2)
        recompiled = torch._dynamo.utils.counters["recompiles"]
        assert not recompiled, recompiled
        return calls, trainer.callback_metrics.keys(), list(module.state_dict().values())

    calls, _, alone = run()
    assert calls and sum(calls) >= 6
    monitors = [
        FisherMonitor(1, samples=12),
        WeightInformationMonitor(1, samples=10, steps=1),
        UsableInformationMonitor(1),
        SourceVarianceMonitor(["head"], 1, samples=6, pairs=3, reestimate_batch_norm=True),
    ]
    again, logged, watched = run(*monitors)
    assert again == calls
    assert {"fisher/trace/model.1", "information/weights/head", "rsv/head/mean"} <= set(logged)
    assert all(torch.equal(a, b) for a, b in zip(watched, alone, strict=True))


def test_layers_of_a_compiled_network_keep_their_names():
    project = Compiled("part", "eager")
    trainer = fit(project, (loader(Pairs()), loader(Pairs())), SourceVarianceMonitor(["model.1"]))
    assert "rsv/model.1/mean" in trainer.callback_metrics
