"""Environments of gymnasium, where it is installed, and the sentence where it is not."""

import sys

import pytest
import pytorch_lightning as pl
import torch
from small_runs import quiet_trainer

from critical_periods.callbacks import GuidanceWindow
from critical_periods.core.errors import UserError
from critical_periods.data import EnvironmentDataModule
from critical_periods.guidance import Gymnasium, Potential
from critical_periods.models import AgentMLP
from critical_periods.tasks import ActorCriticTask


def test_without_gymnasium_a_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(UserError, match=r"pip install 'critical-periods\[rl\]'"):
        Gymnasium("CartPole-v1")


@pytest.fixture
def cart_pole() -> Gymnasium:
    pytest.importorskip("gymnasium")
    return Gymnasium("CartPole-v1", episodes=1000, val_episodes=4)


def test_episodes_are_those_of_gymnasium_with_seeds_of_their_own(cart_pole):
    import gymnasium

    play = cart_pole.episodes("val", torch.arange(4), "cpu")
    alone = [gymnasium.make("CartPole-v1") for _ in range(4)]
    seen = [one.reset(seed=1000 + number)[0] for number, one in enumerate(alone)]
    total, ended = torch.zeros(4), torch.zeros(4, dtype=torch.bool)
    for time in range(30):
        for one in torch.nonzero(~ended)[:, 0]:
            assert play.observe()[one].tolist() == pytest.approx(seen[one].tolist(), abs=1e-6)
        actions = torch.tensor([1, 0, 1, time % 2])
        step = play.step(actions)
        total += step.reward
        for one in torch.nonzero(~ended)[:, 0]:
            seen[one], reward, terminated, _, _ = alone[one].step(int(actions[one]))
            assert bool(step.terminated[one]) is terminated and float(step.reward[one]) == reward
        # One that has ended stays ended and earns nothing, whatever the others do.
        assert (step.terminated | ~ended).all() and (step.reward[ended] == 0).all()
        ended = step.terminated | step.truncated
        assert not step.succeeded.any()
    assert ended[:3].all()
    torch.manual_seed(0)
    play.restart(ended)
    assert (play.observe()[ended].abs() <= 0.05).all()
    assert not play.step(torch.zeros(4, dtype=torch.long)).terminated[:3].any()


def test_what_ends_at_the_limit_of_time_is_not_cut_off(cart_pole):
    play = cart_pole.episodes("val", torch.arange(2), "cpu")
    play.vector.envs[0].unwrapped.state = [2.39, 3.0, 0.0, 0.0]  # leaves the track
    for one in play.vector.envs:
        one._elapsed_steps = 499
    step = play.step(torch.tensor([0, 0]))
    assert step.terminated.tolist() == [True, False]
    assert step.truncated.tolist() == [False, True]


def test_an_agent_balances_and_is_not_guided_without_a_goal(cart_pole):
    pl.seed_everything(0)
    networks = AgentMLP(4, 2, [16], tanh=True), AgentMLP(4, 1, [16], gain=1.0, tanh=True)
    task = ActorCriticTask(*networks, steps=16)
    data = EnvironmentDataModule(cart_pole, environments=4)
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(task, datamodule=data)
    assert trainer.callback_metrics["train/reward"] == 1
    assert trainer.callback_metrics["val/return"] > 5
    with pytest.raises(UserError, match="which Gymnasium does not have; use FourRooms"):
        quiet_trainer(GuidanceWindow(Potential()), max_epochs=1).fit(task, datamodule=data)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("NoPole-v0", "name='NoPole-v0' of Gymnasium cannot be made: .*; install the package"),
        ("nowhere:Pole-v0", "name='nowhere:Pole-v0' of Gymnasium cannot be made"),
        ("Pendulum-v1", "the actions of 'Pendulum-v1' are of Box.*, but must be discrete"),
    ],
)
def test_what_cannot_be_played_is_refused(name, sentence):
    pytest.importorskip("gymnasium")
    with pytest.raises(UserError, match=sentence):
        Gymnasium(name)
