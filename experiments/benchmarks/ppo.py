"""Is our PPO the usual one? CartPole by ActorCriticTask and by stable-baselines3, settings alike.

Both train tanh networks of 64 and 64 units on 8 environments side by side, rollouts of 128 steps,
10 passes in 4 minibatches, Adam at 1e-3. After each share of the steps, the policy plays 100
episodes of the same seeds, its actions drawn; the table has the mean return (at most 500). They
agree where the 95 % interval of the mean difference over seeds has 0 in it.

    pip install 'critical-periods[bench]'
    python experiments/benchmarks/ppo.py --output experiments/results/ppo.csv
"""

from __future__ import annotations

import argparse
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from critical_periods.data import EnvironmentDataModule
from critical_periods.guidance import Gymnasium
from critical_periods.models import AgentMLP
from critical_periods.studies.statistics import summarise
from critical_periods.studies.tables import write_table
from critical_periods.tasks import ActorCriticTask

ENVIRONMENTS, STEPS, PASSES, MINIBATCHES, RATE = 8, 128, 10, 4, 1e-3
ROLLOUTS = 10  # of a share: 10,240 steps


@torch.no_grad()
def play(network: Any, episodes: int = 100) -> float:
    """The mean return of a policy."""
    kind = Gymnasium("CartPole-v1", val_episodes=episodes)
    playing, draws = kind.episodes("val", torch.arange(episodes), "cpu"), torch.Generator()
    total, plays = torch.zeros(episodes), torch.ones(episodes, dtype=torch.bool)
    while plays.any():
        logits = network(playing.observe())
        step = playing.step(logits.softmax(1).multinomial(1, generator=draws)[:, 0])
        total, plays = total + step.reward * plays, plays & ~(step.terminated | step.truncated)
    return float(total.mean())


class Played(pl.Callback):
    """The mean return after each epoch."""

    def __init__(self) -> None:
        self.returns: list[float] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.returns.append(play(pl_module.network))


def ours(seed: int, shares: int) -> list[float]:
    """By ActorCriticTask, an epoch a share."""
    pl.seed_everything(seed, verbose=False)
    played = Played()
    task = ActorCriticTask(
        AgentMLP(4, 2, [64, 64], tanh=True), AgentMLP(4, 1, [64, 64], gain=1.0, tanh=True),
        partial(torch.optim.Adam, lr=RATE, eps=1e-5),
        steps=STEPS, rollouts=ROLLOUTS, passes=PASSES, minibatches=MINIBATCHES, entropy=0.0,
    )  # fmt: skip
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=shares, callbacks=[played], logger=False,
        limit_val_batches=0, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, EnvironmentDataModule(Gymnasium("CartPole-v1"), ENVIRONMENTS))
    return played.returns


def theirs(seed: int, shares: int) -> list[float]:
    """By stable-baselines3."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    batch = ENVIRONMENTS * STEPS // MINIBATCHES
    model = PPO(
        "MlpPolicy", make_vec_env("CartPole-v1", ENVIRONMENTS, seed=seed), seed=seed, device="cpu",
        n_steps=STEPS, batch_size=batch, n_epochs=PASSES, learning_rate=RATE, ent_coef=0.0,
    )  # fmt: skip

    def logits(seen: Tensor) -> Tensor:
        distribution: Any = model.policy.get_distribution(seen).distribution
        found: Tensor = distribution.logits
        return found

    returns = []
    for share in range(shares):
        model.learn(ROLLOUTS * STEPS * ENVIRONMENTS, reset_num_timesteps=share == 0)
        returns.append(play(logits))
    return returns


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--shares", type=int, default=4, help="of 10,240 steps")
    parser.add_argument("--output", type=Path, help="a table of the returns")
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)

    rows: list[dict[str, Any]] = []
    print(f"{'seed':>6}{'steps':>8}{'ours':>8}{'theirs':>8}")
    for seed in range(options.seeds):
        pairs = zip(ours(seed, options.shares), theirs(seed, options.shares), strict=True)
        for share, (one, other) in enumerate(pairs, start=1):
            steps = share * ROLLOUTS * STEPS * ENVIRONMENTS
            rows.append(
                {"steps": steps, "seed": seed, "ours": round(one, 2), "theirs": round(other, 2)}
            )
            print(f"{seed:>6}{steps:>8}{one:>8.1f}{other:>8.1f}", flush=True)
    if options.output:
        write_table(options.output, sorted(rows, key=lambda row: (row["steps"], row["seed"])))
    for steps in sorted({row["steps"] for row in rows}):
        of_steps = [row["ours"] - row["theirs"] for row in rows if row["steps"] == steps]
        mean, _, low, high = summarise(of_steps)
        agree = "agree" if low <= 0 <= high else "DIFFER"
        print(f"after {steps} steps they {agree}: {mean:+.1f} ({low:+.1f} to {high:+.1f})")


if __name__ == "__main__":
    main()
