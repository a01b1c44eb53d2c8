"""Freezing a part of a network: not a bit of it moves, and all else is as before."""

import copy
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import quiet_trainer
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.callbacks import FreezeWindow
from critical_periods.core.errors import UserError

OPTIMIZERS: dict[str, Any] = {
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "fused momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1, fused=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "fused adamw": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1, fused=True),
    "one by one": lambda p: optim.RMSprop(p, lr=0.1, momentum=0.9, weight_decay=0.1, foreach=False),
}


class Chain(pl.LightningModule):
    """Three layers in a row; the middle one will be frozen."""

    def __init__(self, optimizer: Any = OPTIMIZERS["momentum"], manual: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential()
        for name in ("first", "middle", "last"):
            self.network.add_module(name, nn.Linear(4, 4))
        self.network.add_module("flat", nn.Flatten())
        self.optimizer = optimizer
        self.automatic_optimization = not manual

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.network(batch[0]).square().mean()
        if not self.automatic_optimization:
            chosen: Any = self.optimizers()
            chosen.zero_grad()
            self.manual_backward(loss)
            chosen.step()
        return loss

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters())


class States(pl.Callback):
    """The network and what the optimiser remembers of it at the end of each epoch."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.memory: list[list[Any]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.weights.append(copy.deepcopy(pl_module.network.state_dict()))  # type: ignore[union-attr]
        state = trainer.optimizers[0].state
        parameters = pl_module.network.middle.parameters()  # type: ignore[union-attr]
        self.memory.append([copy.deepcopy(state[one]) for one in parameters])


def loader() -> DataLoader[Any]:
    images = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(images), batch_size=2)


def fit(model: Chain, *windows: FreezeWindow, epochs: int = 4, **settings: Any) -> States:
    states = States()
    quiet_trainer(*windows, states, max_epochs=epochs, **settings).fit(model, loader())
    return states


def same(one: dict[str, Tensor], other: dict[str, Tensor], part: str) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one if name.startswith(part))


@pytest.mark.parametrize("manual", [False, True], ids=["automatic", "manual"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_nothing_moves_a_frozen_module(name, manual):
    model = Chain(OPTIMIZERS[name], manual)
    states = fit(model, FreezeWindow(["middle"], onset=1, removal=3))
    before, first, second, after = states.weights
    assert same(before, first, "middle") and same(before, second, "middle")
    # What the optimiser has learnt of it waits: momentum, averages and counts of steps.
    assert str(states.memory[0]) == str(states.memory[2])
    # It learns before and after, and all else, gradients through it included, does throughout.
    initial = Chain().network.state_dict()
    assert not same(initial, before, "middle.weight") and not same(second, after, "middle.weight")
    for older, newer in ((before, first), (first, second), (second, after)):
        assert not same(older, newer, "first.weight") and not same(older, newer, "last.weight")


def test_what_comes_before_is_as_without_a_window_and_an_empty_one_is_none():
    clean = fit(Chain()).weights
    frozen = fit(Chain(), FreezeWindow(["middle"], onset=2, removal=3)).weights
    assert same(clean[1], frozen[1], "") and not same(clean[2], frozen[2], "first")
    empty = fit(Chain(), FreezeWindow(["middle"], onset=2, removal=2)).weights
    assert same(clean[3], empty[3], "")


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_the_frozen_output_counts_and_its_gradients_do_not(clip):
    """One step of plain descent with the middle frozen, by hand; the others' norm is clipped."""
    model = Chain(lambda p: optim.SGD(p, lr=0.1))
    by_hand = copy.deepcopy(model.network)
    fit(model, FreezeWindow(["middle"]), epochs=1, limit_train_batches=1, gradient_clip_val=clip)
    by_hand(next(iter(loader()))[0]).square().mean().backward()
    by_hand.middle.zero_grad()
    nn.utils.clip_grad_norm_(by_hand.parameters(), clip or torch.inf)
    for name, parameter in by_hand.named_parameters():
        step = 0 if parameter.grad is None else 0.1 * parameter.grad
        torch.testing.assert_close(model.network.get_parameter(name), parameter - step)


def test_gradients_gathered_over_batches_do_not_move_it():
    window = FreezeWindow(["middle"], onset=1, removal=3)
    before, _, second, after = fit(Chain(), window, accumulate_grad_batches=3).weights
    assert same(before, second, "middle") and not same(second, after, "middle.weight")


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_that_goes_on_has_the_same_bits(at, tmp_path: Path):
    whole = fit(Chain(), FreezeWindow(["middle"], onset=1, removal=3)).weights
    keeper = ModelCheckpoint(tmp_path, filename="half")
    window = FreezeWindow(["middle"], onset=1, removal=min(3, at) if at > 1 else 1)
    trainer = quiet_trainer(window, keeper, max_epochs=at, enable_checkpointing=True)
    trainer.fit(Chain(), loader())
    states = States()
    trainer = quiet_trainer(FreezeWindow(["middle"], onset=1, removal=3), states, max_epochs=4)
    trainer.fit(Chain(), loader(), ckpt_path=keeper.best_model_path, weights_only=True)
    assert same(whole[-1], states.weights[-1], "")


def test_the_requires_grad_of_the_user_stays():
    model = Chain()
    model.network.last.bias.requires_grad_(False)  # type: ignore[union-attr]
    fit(model, FreezeWindow(["middle", "last"], onset=0, removal=2))
    wanted = {name: one.requires_grad for name, one in model.network.named_parameters()}
    assert [name for name, on in wanted.items() if not on] == ["last.bias"]


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (["midle"], "'midle', which the network does not have; did you mean 'middle'?"),
        (["flat"], "'flat', which has no parameters"),
        ([], "must be a list of module names"),
        ("middle", "must be a list of module names"),
    ],
)
def test_names_that_do_not_fit_are_refused_before_training(modules, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        fit(Chain(), FreezeWindow(modules), epochs=1)
