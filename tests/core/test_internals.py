"""Internals of other packages still do what this package leans on them for."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import pytest
import pytorch_lightning as pl
import torch
from jsonargparse import ArgumentParser
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from small_runs import quiet_trainer
from torch import Tensor, nn
from torch.optim import lr_scheduler
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.core import internals
from critical_periods.core.autograd_graph import UnknownUseError, parameter_uses
from critical_periods.core.internals import both_names

# Lightning and torch, in training.


class Module(pl.LightningModule):
    """A linear layer that keeps the stage and the size of what comes through its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.hooks: list[tuple[str, bool]] = []

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.hooks.append(("before", bool(self.trainer.training)))
        return batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        self.hooks.append(("after", bool(self.trainer.training)))
        return [batch[0] + 1]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.layer(batch[0]).square().mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(samples: int = 6, **settings: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.zeros(samples, 2)), batch_size=2, **settings)


def trainer(*callbacks: Any, **settings: Any) -> Any:
    return quiet_trainer(*callbacks, **({"max_epochs": 1} | settings))


class AtStart(pl.Callback):
    """Calls a function as training starts, and keeps what it gives."""

    def __init__(self, look: Any) -> None:
        self.look, self.seen = look, []  # type: ignore[var-annotated]

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.seen.append(self.look(trainer))


@pytest.mark.parametrize(
    ("precision", "made", "converted"),
    [
        ("64-true", torch.float64, torch.float64),
        ("bf16-true", torch.bfloat16, torch.bfloat16),
        ("bf16-mixed", torch.float32, torch.float32),
        ("32-true", torch.float32, torch.float32),
        (None, torch.float32, torch.float32),  # no Trainer
    ],
)
def test_precision(precision, made, converted):
    run = trainer(precision=precision) if precision else None
    assert internals.in_precision(run, torch.zeros(2)).dtype == converted
    with internals.default_dtype(run):
        assert torch.zeros(1).dtype == made and not torch.is_autocast_enabled("cpu")
    assert torch.zeros(1).dtype == torch.float32


@pytest.mark.parametrize("validating", [False, True])
def test_transferred_goes_through_the_hooks_of_its_stage(validating):
    def look(run: Any) -> Any:
        batch = internals.transferred(run, [torch.zeros(1, 2)], validating)
        return batch[0].dtype, batch[0].sum().item(), run.training, run.validating

    module, spy = Module(), AtStart(look)
    trainer(spy, precision="64-true").fit(module, loader())
    assert spy.seen == [(torch.float64, 2.0, True, False)]
    assert module.hooks[:2] == [("before", not validating), ("after", not validating)]


def test_validation_is_set_up_before_it_is_due():
    def look(run: Any) -> Any:
        before = run.val_dataloaders
        internals.set_up_validation(run)
        return before, len(run.val_dataloaders)

    spy = AtStart(look)
    trainer(spy, max_epochs=2, check_val_every_n_epoch=2).fit(Module(), loader(), loader(4))
    assert spy.seen == [(None, 2)]


def test_a_pass_through_persistent_workers_is_not_theirs():
    data = loader(num_workers=1, persistent_workers=True)
    own = iter(data)
    copy = internals.separate(data)
    assert copy._iterator is None and data._iterator is own
    assert len(list(copy)) == len(list(own)) == 3


def test_a_separate_loader_shares_large_arrays_and_no_state():
    large, small = torch.zeros(2**18), torch.zeros(4)  # of 1 MiB, and less
    data = DataLoader(TensorDataset(large[:4], small), shuffle=True, generator=torch.Generator())
    data.dataset.large = [{"all": large}]
    before = data.generator.get_state()
    copy = internals.separate(data)
    assert len(list(copy)) == 4 and torch.equal(data.generator.get_state(), before)
    assert copy.dataset.large[0]["all"] is large
    assert copy.dataset.tensors[1] is not small
    # Neither a stream nor an open file can be read twice.
    for state in (iter(data), (x for x in "ab"), open(__file__)):  # noqa: SIM115
        data.dataset.state = [state]
        assert internals.separate(data) is None


def test_workers_end_with_the_run():
    class Around(internals.HasWorkers):
        def __init__(self) -> None:
            self.workers = loader(num_workers=1, persistent_workers=True)

        def __iter__(self) -> Any:
            self.iterator = iter(self.workers)
            return self.iterator

        def __len__(self) -> int:
            return len(self.workers)

    around = Around()
    trainer().fit(Module(), around)
    assert not any(worker.is_alive() for worker in around.iterator._workers)
    assert around.workers._iterator is None


@pytest.mark.parametrize(
    ("chosen", "settings", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (None, {}, True),
        (None, {"val_check_interval": 0.5}, False),
        (None, {"check_val_every_n_epoch": 2}, False),
    ],
)
def test_early_stopping_decides_as_it_is_foretold(chosen, settings, expected):
    stops = EarlyStopping("loss", check_on_train_epoch_end=chosen)
    run = trainer(stops, **settings)
    assert internals.stops_before_monitors(stops, run) is expected
    stops.setup(run, Module(), "fit")
    assert stops._check_on_train_epoch_end is expected


def test_milestones():
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    parts = [lr_scheduler.ConstantLR(optimizer) for _ in range(3)]
    one_after_another = lr_scheduler.SequentialLR(optimizer, parts, milestones=[2, 5])
    assert internals.milestones(one_after_another) == [2, 5]
    assert internals.milestones(lr_scheduler.MultiStepLR(optimizer, [7, 3])) == [3, 7]
    assert internals.milestones(lr_scheduler.ExponentialLR(optimizer, 0.9)) == []


class Data(pl.LightningDataModule):
    """One batch in the first epoch, three in each later one."""

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        return loader(6 if self.trainer.current_epoch else 2)


class Reload(pl.Callback):
    """Has loaders made anew, and puts a checkpoint's epoch right."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.restore = internals.reload_every_epoch(trainer)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        internals.finish_resumed_epoch(trainer, 6)

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self.batches.append(trainer.current_epoch)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.restore()


def test_epochs_of_other_lengths_and_a_checkpoint_of_the_last_batch(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    reload = Reload()
    run = trainer(reload, saver, max_epochs=3, enable_checkpointing=True)
    run.fit(Module(), datamodule=Data())
    everything = [0, 1, 1, 1, 2, 2, 2]
    assert reload.batches == everything
    assert run.reload_dataloaders_every_n_epochs == 0
    for step in (1, 3, 4, 6):
        rest, path = Reload(), tmp_path / f"step={step}.ckpt"
        resumed = trainer(rest, max_epochs=3)
        resumed.fit(Module(), datamodule=Data(), ckpt_path=path, weights_only=True)
        assert rest.batches == everything[step:] and resumed.global_step == 7


def test_connect_makes_optimisers_without_training():
    stages: list[str] = []
    module, data, run = Module(), SimpleNamespace(), trainer()
    module.setup = stages.append  # type: ignore[method-assign, assignment]
    internals.connect(run, module, data)
    assert run.datamodule is data and module.trainer is run
    assert stages == ["fit"] and isinstance(run.optimizers[0], torch.optim.SGD)
    other = trainer()
    internals.connect(other, None, data)
    assert other.datamodule is data and not other.optimizers


@pytest.mark.parametrize("make", [torch.compile, lambda layer, **how: layer.compile(**how)])
def test_calls_of_compiled_modules_are_seen_and_not_compiled_anew(make):
    graphs, seen = [], []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    layer = nn.Linear(2, 1)
    made = make(layer, backend=backend)
    module = layer if made is None else made
    assert internals.is_compiled(module) and not internals.is_compiled(nn.Linear(2, 1))
    module(torch.zeros(1, 2))
    end = internals.around_calls(
        module, lambda one: seen.append((one,)), lambda *call: seen.append(call)
    )
    module(torch.ones(1, 2))
    end()
    module(torch.zeros(1, 2))
    (before, (after, (given,), settings)) = seen
    assert before == (module,) and after is module and given.sum() == 2 and settings == {}
    assert len(graphs) == 1


def test_whether_anything_is_compiled():
    torch.compiler.reset()
    assert not internals.compiles_functions()
    torch.compile(lambda x: x + 1, backend="eager")
    assert internals.compiles_functions()
    torch.compiler.reset()


def test_calls_that_fail_end_too():
    module, seen = nn.Linear(2, 1), []
    internals.around_calls(module, seen.append, lambda *call: seen.append(call[0]))
    with pytest.raises(RuntimeError):
        module(torch.zeros(1, 3))
    assert seen == [module] * 2


def test_a_wrapper_calls_the_step_as_the_forward():
    calls = []

    class Redirected(Module):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            calls.append("step")
            return self(batch[0]).sum()

        def forward(self, view: Tensor) -> Tensor:
            return self.layer(view)

    module, redirect = Redirected(), pl.strategies.strategy._ForwardRedirection()
    module.register_forward_pre_hook(
        lambda one, args: calls.append("whole" if internals.is_redirected(one) else "forward")
    )
    for _ in range(2):
        redirect(module, module, "training_step", [torch.zeros(1, 2)], 0)
    assert calls == ["whole", "step", "forward"] * 2


def test_bases_of_the_other_package_are_found_when_it_is_imported(monkeypatch):
    @internals.under_both_names
    class Ours(pl.Callback): ...

    twin = type("Callback", (), {})
    other: Any = ModuleType("lightning.part")
    other.__path__ = []
    monkeypatch.setitem(both_names._TWINS, "Callback", "lightning.part")
    monkeypatch.setitem(sys.modules, "lightning.part", other)

    @internals.under_both_names
    class Early(pl.Callback): ...

    assert not issubclass(Early, twin)
    other.Callback = twin
    # While another module of the package is looked for, there or not.
    assert find_spec("os") and not issubclass(Early, twin)
    with pytest.raises(ModuleNotFoundError):
        import_module("lightning.part.nothing")
    assert issubclass(Early, twin) and Early.__mro__.index(pl.Callback) < Early.__mro__.index(twin)
    assert isinstance(Ours(), pl.Callback)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_go_through_torch_func(reentrant: bool):
    module = nn.Linear(2, 2)
    module.register_full_backward_hook(lambda *_: None)

    def call(x: Tensor) -> Tensor:
        return checkpoint(module, x, use_reentrant=reentrant).sum()

    x, hooks = torch.ones(2, 2), module._backward_hooks
    with internals.plain_for_func(module):
        grads = torch.func.vmap(torch.func.grad(call))(x)
    assert torch.equal(
        grads, torch.func.vmap(torch.func.grad(lambda x: (x @ module.weight.T).sum()))(x)
    )
    assert module._backward_hooks is hooks
    with pytest.raises(RuntimeError):
        torch.func.grad(call)(x[0])


def test_recurrent_layers_go_through_torch_func():
    layer, x = nn.LSTM(2, 3, batch_first=True).eval(), torch.rand(1, 4, 2)
    parameters = {name: one.detach() for name, one in layer.named_parameters()}

    def call(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layer, weights, (x,))[0].sum()

    with internals.plain_for_func(layer):
        found = torch.func.grad(call)(parameters)
    assert torch._C._get_mkldnn_enabled() and torch.backends.cudnn.enabled
    layer(x)[0].sum().backward()
    for name, one in layer.named_parameters():
        assert torch.allclose(found[name], one.grad)  # type: ignore[arg-type]


# jsonargparse and LightningCLI, before it.


@pytest.mark.parametrize(("kind", "parsed"), [(int | float, int), (float | int, float)])
def test_the_types_of_an_option_are_tried_in_order(kind, parsed):
    parser = ArgumentParser()
    parser.add_argument("--batches", type=str)
    internals.set_option_type(parser, "--batches", kind)
    assert type(parser.parse_args(["--batches=1"]).batches) is parsed


def test_an_option_takes_one_more_type():
    parser = ArgumentParser()
    parser.add_argument("--precision", type=Literal[16, 32] | None)
    internals.add_option_type(parser, "--precision", Literal["auto"])
    assert parser.parse_args(["--precision=auto"]).precision == "auto"
    assert parser.parse_args(["--precision=16"]).precision == 16


class Base:
    def __init__(self, size: int, name: str | None = None) -> None: ...


class Derived(Base):
    def __init__(self, width: float = 2, **settings: Any) -> None:
        super().__init__(**settings)


class Conditional(Base):
    def __init__(self, **settings: Any) -> None:
        super().__init__(settings.pop("size", 3 if settings else 4), **settings)


def test_parameters_that_are_passed_on_are_known():
    found = internals.class_parameters(Derived)
    assert {name: one.annotation for name, one in found.items()} == {
        "width": float, "size": int, "name": str | None,
    }  # fmt: skip
    assert (found["width"].default, found["size"].default) == (2, found["size"].empty)
    # A default that is not known may be null.
    assert internals.class_parameters(Conditional)["size"].default is None


class Looks(pl.Callback):
    """Calls a function in a hook, and keeps what it gives."""

    def __init__(self, hook: str, look: Any) -> None:
        self.seen: list[Any] = []
        setattr(self, hook, lambda trainer, *args: self.seen.append(look(trainer)))


@pytest.mark.parametrize(("steps", "batches", "epoch"), [(2, 2, 0), (3, 0, 1), (4, 1, 1)])
def test_a_run_that_max_steps_stopped_goes_on_in_place(tmp_path, steps, batches, epoch):
    """Epochs of three batches; which of them come is the business of the loader."""
    saver = ModelCheckpoint(tmp_path, filename="end")
    stopped = trainer(saver, max_steps=steps, max_epochs=3, enable_checkpointing=True)
    stopped.fit(Module(), loader())

    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            internals.resume_in_place(self.trainer)
            return loader()

    for limits in ({"max_epochs": 3}, {"max_epochs": -1, "max_steps": 9}):
        places = Looks("on_train_batch_start", lambda one: one.current_epoch)
        left_out = Looks("on_train_start", internals.batches_before_resuming)
        resumed = trainer(places, left_out, **limits)
        resumed.fit(Module(), Data(), ckpt_path=tmp_path / "end.ckpt", weights_only=True)
        assert left_out.seen == [batches]
        # This loader does not know how far it was, so it gives all batches that Lightning counts.
        assert places.seen[0] == epoch and resumed.current_epoch == 3
        assert resumed.global_step >= 9


def test_measures_that_schedulers_follow():
    class Following(Module):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/loss", 2.0)

        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
            settings = {"scheduler": scheduler, "monitor": "val/loss"}
            return {"optimizer": optimizer, "lr_scheduler": settings}

    before = Looks("on_train_start", internals.measures_followed)
    after = Looks("on_train_epoch_end", internals.measures_followed)
    lacking = Looks("on_train_start", internals.lacks_measures)
    one = trainer(before, after, lacking, max_epochs=2)
    one.fit(Following(), loader(), loader())
    assert (before.seen, after.seen, lacking.seen) == ([{}], [{"val/loss": 2.0}] * 2, [[]])
    (config,) = one.lr_scheduler_configs
    assert config.scheduler.last_epoch == 2
    one.fit_loop.epoch_progress.current.processed = 3
    internals.follow_measures(one, {"val/loss": 1.0})
    assert config.scheduler.last_epoch == 3 and config.scheduler.best == 1.0
    other = trainer(before)
    other.fit(Module(), loader())
    assert before.seen[-1] is None


def test_batch_norm_of_all_processes():
    assert not internals.synchronises_batch_norm(trainer())
    assert not internals.synchronises_batch_norm(trainer(devices=2))
    assert internals.synchronises_batch_norm(trainer(devices=2, sync_batchnorm=True))


def test_where_a_finder_looks_for_a_rate():
    finder = pl.callbacks.LearningRateFinder
    assert internals.rate_attributes(finder()) == ["lr", "learning_rate"]
    assert internals.rate_attributes(finder(attr_name="rate")) == ["rate"]


def test_graphs_of_gradients_say_where_parameters_are_used():
    layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    trained = dict(layers.eval().named_parameters())
    uses = parameter_uses(layers(torch.randn(2, 2, 4, 4)), trained)
    assert [use.kind for use in uses] == ["linear", "batch_norm", "convolution"]
    assert all({"weight", "bias"} == use.parameters.keys() for use in uses)
    assert uses[0].saved("mat1").shape == (2, 12) and uses[2].saved("input").shape == (2, 2, 4, 4)
    twice = layers[3].weight
    for output, node in ((twice @ twice.T, "Mm"), (twice.sin(), "Sin")):
        with pytest.raises(UnknownUseError, match=f"goes into {node}"):
            parameter_uses(output, {"w": twice})
