"""PPO: advantages and losses against plain loops, exact resumption, windows, and what it learns."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from processes import WORLD, join_processes, start_processes
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import clean_samples, quiet_trainer
from torch import Tensor, nn

from critical_periods.callbacks import AgentMonitor, FisherMonitor, GuidanceWindow
from critical_periods.core.errors import UserError
from critical_periods.data import DigitsDataModule, EnvironmentDataModule
from critical_periods.guidance import (
    Demonstration,
    FourRooms,
    Guidance,
    MisleadingReward,
    Potential,
    advantages,
    losses,
)
from critical_periods.guidance.environment import Environment
from critical_periods.guidance.monitor import dormant, mean_activations
from critical_periods.models import AgentMLP
from critical_periods.tasks import ActorCriticTask, ClassificationTask


def test_advantages_are_those_of_a_loop():
    """A_t is the sum of (γλ)^k δ_(t+k) until the episode's end."""
    torch.manual_seed(0)
    rewards, values = torch.randn(2, 7, 3, dtype=torch.float64)
    last, ended = torch.randn(3, dtype=torch.float64), torch.rand(7, 3) < 0.3
    found = advantages(rewards, values, last, ended, 0.9, 0.8)
    for b in range(3):
        for t in range(7):
            total, weight = 0.0, 1.0
            for k in range(t, 7):
                after = 0.0 if ended[k, b] else float(values[k + 1, b] if k < 6 else last[b])
                total += weight * (float(rewards[k, b]) + 0.9 * after - float(values[k, b]))
                if ended[k, b]:
                    break
                weight *= 0.9 * 0.8
            assert float(found[t, b]) == pytest.approx(total, rel=1e-12)


def test_losses_are_those_of_a_loop_and_have_no_gradient_where_clipped():
    torch.manual_seed(1)
    logits = torch.randn(50, 4, dtype=torch.float64, requires_grad=True)
    old, (values, returns, advantage) = torch.randn(50, 4).double(), torch.randn(3, 50).double()
    actions = torch.randint(4, (50,))
    before = old.log_softmax(1).gather(1, actions[:, None])[:, 0]
    found = losses(logits, values, actions, before, advantage, returns, clip=0.2)
    policy = value = entropy = 0.0
    is_clipped = []
    for n in range(50):
        p = logits[n].softmax(0).tolist()
        ratio = p[actions[n]] / math.exp(before[n])
        a = float(advantage[n])
        policy -= min(ratio * a, max(0.8, min(ratio, 1.2)) * a) / 50
        value += float(values[n] - returns[n]) ** 2 / 50
        entropy -= sum(q * math.log(q) for q in p) / 50
        is_clipped.append((ratio > 1.2 and a > 0) or (ratio < 0.8 and a < 0))
    assert [float(part.detach()) for part in found] == pytest.approx(
        [policy, value, entropy], rel=1e-10
    )
    found.policy.backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(1) == 0).tolist() == is_clipped and 0 < sum(is_clipped) < 50


class Logged(pl.Callback):
    """What was logged at the end of each epoch."""

    def __init__(self) -> None:
        self.epochs: dict[int, dict[str, float]] = {}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.epochs[trainer.current_epoch] = values


def agent(**settings: Any) -> ActorCriticTask:
    networks = AgentMLP(100, 4, [16]), AgentMLP(100, 1, [16], gain=1.0)
    small = {"steps": 12, "rollouts": 2, "passes": 2, "minibatches": 3}
    return ActorCriticTask(*networks, **{**small, **settings})


def small_rooms(**settings: Any) -> FourRooms:
    return FourRooms(**{"size": 5, "layouts": 20, "val_layouts": 8, "limit": 16, **settings})


def fit(
    epochs: int, *callbacks: pl.Callback, task: Any = None, data: Any = None, checkpoint: Any = None
) -> tuple[ActorCriticTask, dict[int, dict[str, float]]]:
    pl.seed_everything(0)
    task, logged = task or agent(), Logged()
    data = data or EnvironmentDataModule(small_rooms(), environments=16)
    keeps = any(isinstance(one, ModelCheckpoint) for one in callbacks)
    trainer = quiet_trainer(*callbacks, logged, max_epochs=epochs, enable_checkpointing=keeps)
    trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    return task, logged.epochs


class Counting(Guidance):
    """Pays 1 a step, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(1.0)
        self.shown: list[tuple[Any, Any]] = []

    def reward(self, before: Any, after: Any, discount: float) -> Tensor:
        self.shown.append((before, after))
        return torch.ones_like(after.remaining)


def test_a_window_guides_in_its_epochs_alone_and_its_rewards_reach_the_critic():
    guidance, task = Counting(), agent(discount=0.0, passes=15)
    task.optimizer = partial(torch.optim.Adam, lr=1e-2)
    _, logged = fit(3, GuidanceWindow(guidance, 1, 2), task=task)
    assert [logged[epoch]["guidance/active"] for epoch in range(3)] == [0, 1, 0]
    # Two rollouts of 12 steps; at the goal nothing remains.
    assert len(guidance.shown) == 24
    assert all((before.remaining > 0).all() for before, _ in guidance.shown)
    assert any((after.remaining == 0).any() for _, after in guidance.shown)
    # What is logged of rewards is the environment's own.
    assert all(0 <= logged[epoch]["train/reward"] < 0.5 for epoch in range(3))
    task = agent(discount=0.0, passes=15)
    task.optimizer = partial(torch.optim.Adam, lr=1e-2)
    fit(1, GuidanceWindow(Counting(), 0, 1), task=task)
    seen = clean_samples(EnvironmentDataModule(small_rooms()), "train").inputs[0]
    assert float(task.critic(seen).detach().mean()) > 0.6  # of 1 a step, and γ = 0


def test_monitors_measure_any_activation_function():
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.GELU(), nn.Linear(2, 1))
    seen = torch.randn(5, 3)
    (means,) = mean_activations(network, seen)
    torch.testing.assert_close(means, network[:3](seen).abs().mean(0).detach())


def test_where_several_windows_are_open_their_guidances_add_up():
    two = [GuidanceWindow(Counting(), 0, 1), GuidanceWindow(Potential(0.0), 0, 1)]
    one, _ = fit(1, GuidanceWindow(Counting(), 0, 1))
    both, _ = fit(1, *two)
    none, _ = fit(1)
    weights, same, other = (task.critic.head.weight for task in (one, both, none))
    assert torch.equal(weights, same) and not torch.equal(weights, other)


@pytest.mark.parametrize("guidance", [Potential(0.1), Demonstration(0.5), MisleadingReward(0.1)])
def test_a_run_that_goes_on_within_a_window_has_the_same_bits(guidance, tmp_path: Path):
    window = partial(GuidanceWindow, guidance, 1)
    whole, logged = fit(4, window(3))
    keeper = ModelCheckpoint(tmp_path, filename="half")
    fit(2, window(2), keeper)
    rest, again = fit(4, window(3), checkpoint=keeper.best_model_path)
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)
    assert again[3] == logged[3]


def in_two_processes(rank: int, folder: Path) -> None:
    """Trains in two processes, and writes down the weights and the log of this one."""
    pl.seed_everything(0, verbose=False)
    task, logged = agent(), Logged()
    window = GuidanceWindow(Demonstration(0.5), 0, 1)
    trainer = quiet_trainer(window, logged, max_epochs=2, devices=WORLD, strategy="ddp")
    trainer.fit(task, EnvironmentDataModule(small_rooms(), environments=16))
    torch.save({"weights": task.state_dict(), "log": logged.epochs}, folder / f"{rank}.pt")


def test_two_processes_share_the_environments_and_keep_the_same_weights(tmp_path):
    join_processes(start_processes(in_two_processes, tmp_path))
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD))
    torch.testing.assert_close(one["weights"], other["weights"], rtol=0, atol=0)
    assert one["log"] == other["log"]
    pl.seed_everything(0, verbose=False)
    assert not torch.equal(one["weights"]["network.head.weight"], agent().network.head.weight)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_agents_train_in_other_precisions(precision):
    trainer = quiet_trainer(max_epochs=1, precision=precision)
    trainer.fit(agent(), EnvironmentDataModule(small_rooms(), environments=16))
    assert trainer.callback_metrics["train/loss"].isfinite()


def test_agents_learn_unseen_rooms_and_a_demonstration_shows_them_sooner():
    learned = {}
    for name, weight in (("alone", 0.0), ("shown", 1.0)):
        task = agent(steps=40, rollouts=1, passes=4, minibatches=4)
        task.optimizer = partial(torch.optim.Adam, lr=1e-2)
        rooms = EnvironmentDataModule(small_rooms(layouts=40, limit=40), environments=48)
        _, logged = fit(10, GuidanceWindow(Demonstration(weight), 0, 4), task=task, data=rooms)
        learned[name] = [logged[epoch]["val/success"] for epoch in range(10)]
    assert sum(learned["shown"]) > sum(learned["alone"]) + 1
    assert learned["shown"][-1] >= 0.75 and learned["alone"][-1] > min(learned["alone"])


def test_monitors_measure_the_policy_and_the_critic():
    fisher = FisherMonitor(every_n_epochs=1, samples=6)
    task, logged = fit(1, fisher, AgentMonitor(samples=6))
    data = EnvironmentDataModule(small_rooms())
    seen = clean_samples(data, "train", 6).inputs[0]
    critic = policy = 0.0
    for one in seen:
        task.zero_grad()
        task.critic(one[None]).sum().backward()
        critic += sum(float(p.grad.square().sum()) for p in task.critic.parameters()) / 6
        logs = task.network(one[None]).log_softmax(1)[0]
        for action in range(4):
            task.zero_grad()
            logs[action].backward(retain_graph=True)
            norm = sum(float(p.grad.square().sum()) for p in task.network.parameters())
            policy += math.exp(logs[action].detach()) * norm / 6
    assert logged[0]["agent/critic_fisher"] == pytest.approx(critic, rel=1e-4)
    assert logged[0]["fisher/trace"] == pytest.approx(policy, rel=1e-4)
    hidden = task.network.fc1(seen.flatten(1)).relu().mean(0)
    (means,) = mean_activations(task.network, seen)
    torch.testing.assert_close(means, hidden)
    share = (hidden <= 0.025 * hidden.mean()).float().mean().item()
    assert logged[0]["agent/policy_dormant"] == pytest.approx(share)
    assert dormant(torch.tensor([0.0, 1.0])).tolist() == [True, False]


class NoGoal(Environment):
    """Rooms whose goal is not known."""

    def __init__(self) -> None:
        rooms = small_rooms()
        self.actions, self.sizes, self.episodes = 4, rooms.sizes, rooms.episodes
        self.samples, self.contents = rooms.samples, rooms.contents

    def episodes(self, *args: Any) -> Any: ...

    def samples(self, *args: Any) -> Any: ...

    def contents(self) -> Any: ...


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (lambda: fit(1, GuidanceWindow(Potential()), data=EnvironmentDataModule(NoGoal())),
         "Potential guides by the steps that are left to a goal, which NoGoal does not have"),
        (lambda: fit(1, data=DigitsDataModule()), "which DigitsDataModule does not have"),
        (lambda: quiet_trainer(GuidanceWindow(Potential()), max_epochs=1).fit(
            nn_classifier(), datamodule=DigitsDataModule()),
         "GuidanceWindow guides an agent .* which DigitsDataModule does not have"),
        (lambda: quiet_trainer(AgentMonitor(), max_epochs=1).fit(
            nn_classifier(), datamodule=DigitsDataModule()),
         "ActorCriticTask, and the model is a ClassificationTask"),
        (lambda: fit(1, task=ActorCriticTask(AgentMLP(100, 5), AgentMLP(100, 1))),
         r"network of ActorCriticTask gives \[2, 5\] for 2 observations .* give \[2, 4\]"),
        (lambda: fit(1, task=ActorCriticTask(AgentMLP(100, 4), AgentMLP(35, 1))),
         "in_features=35 numbers, but the environment's have 100; set in_features to 100"),
        (lambda: fit(1, task=ActorCriticTask(nn.Linear(7, 4), AgentMLP(100, 1))),
         r"network of ActorCriticTask cannot take observations of \[4, 5, 5\], those of FourRooms"),
        (lambda: GuidanceWindow(Potential(), unit="step"), "give onset and removal in epochs"),
        (lambda: fit(1, GuidanceWindow(Potential(), 0, 2)), "beyond the last epoch"),
        (lambda: agent(steps=0), "steps=0 of ActorCriticTask must be at least 1"),
        (lambda: agent(discount=1.5), r"discount=1.5 of ActorCriticTask must lie in \[0, 1\]"),
        (lambda: agent(clip=0.0), "clip=0.0 of ActorCriticTask must be positive"),
        (lambda: fit(
            1, AgentMonitor(), task=ActorCriticTask(AgentMLP(100, 4, []), AgentMLP(100, 1))),
         "modules of the network of ActorCriticTask, AgentMLP, which has none; use modules such"),
        (lambda: fit(1, task=agent(steps=1, minibatches=9)),
         "minibatches=9 of ActorCriticTask must hold two samples each, .* a process has 16; set"),
        (lambda: agent(entropy=-1.0), "entropy=-1.0 of ActorCriticTask must be at least 0"),
        (lambda: EnvironmentDataModule(small_rooms(), 0), "environments=0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_training(run, sentence):
    with pytest.raises(UserError, match=sentence):
        run()


def nn_classifier() -> pl.LightningModule:
    return ClassificationTask(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
