"""The task of an agent: PPO, in which an epoch is a fixed number of steps."""

from typing import Any

import torch
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from critical_periods.callbacks.windows.window import open_windows
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError, reason
from critical_periods.core.randomness import FIXED_SEED, fold
from critical_periods.core.trainer import datamodule_of, processes_of
from critical_periods.data.example import two_samples
from critical_periods.guidance.environment import Environment, Episodes
from critical_periods.guidance.guidances import Guidance
from critical_periods.guidance.ppo import advantages, losses
from critical_periods.guidance.window import GuidanceWindow
from critical_periods.metrics.functional.fisher import evaluating
from critical_periods.models.network import Network
from critical_periods.tasks.optimizers import build_optimizer
from critical_periods.tasks.task import Task


def _usual_optimizer(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3, eps=1e-5)


class ActorCriticTask(Task):
    """PPO on the episodes of an :class:`~critical_periods.guidance.EnvironmentDataModule`.

    An epoch is ``rollouts`` times ``steps`` steps in each of the environments that are played side
    by side: after each rollout the policy and the critic are trained ``passes`` times on its
    samples, in minibatches. Every epoch begins with new episodes, and all that is drawn in it
    depends on (seed, epoch, rank) alone, so that a run which goes on after any epoch has the same
    bits as one that never stopped; several processes share the environments and average gradients.

    Open :class:`~critical_periods.guidance.GuidanceWindow` s add their rewards to the environment's
    own, and their losses. Logged each epoch: ``train/loss``, ``train/reward`` (a step's, of the
    environment alone), ``train/entropy``, and of the validation episodes, which the policy plays
    with actions drawn from it, ``val/success`` (the share that end in success, on the
    environment's own terms) and ``val/return`` (the mean sum of rewards).

    Source: Schulman et al. 2017 (arXiv 1707.06347), with separate networks, advantages normalised
    in each minibatch and gradients clipped, as in stable-baselines3.

    Args:
        network: the policy, from observations [B, ...] to logits [B, actions].
        critic: from observations to values [B, 1].
        optimizer: of both networks; Adam at 1e-3 by default.
        steps: of a rollout, in each environment.
        rollouts: of an epoch.
        passes: over the samples of a rollout.
        minibatches: that a pass is cut into.
        discount: γ.
        decay: λ of the advantages.
        clip: ε of the ratio.
        entropy: weight of the policy's entropy.
        value: weight of the critic's squared error.
        gradient_norm: that gradients are clipped to.

    Raises:
        UserError: a setting is out of range; before training, the data has no environment or too
            few samples in a rollout, or a network does not fit it.

    Example:
        >>> from critical_periods.guidance.network import AgentMLP
        >>> task = ActorCriticTask(AgentMLP(324, 4), AgentMLP(324, 1, gain=1.0))
        >>> task(torch.zeros(2, 4, 9, 9)).shape
        torch.Size([2, 4])
    """

    logged = ("train/loss", "train/reward", "train/entropy", "val/success", "val/return")

    def __init__(
        self,
        network: Network | nn.Module,
        critic: Network | nn.Module,
        optimizer: OptimizerCallable = _usual_optimizer,
        steps: int = 64,
        rollouts: int = 1,
        passes: int = 4,
        minibatches: int = 8,
        discount: float = 0.99,
        decay: float = 0.95,
        clip: float = 0.2,
        entropy: float = 0.01,
        value: float = 0.5,
        gradient_norm: float = 0.5,
    ) -> None:
        super().__init__()
        counts = {"steps": steps, "rollouts": rollouts, "passes": passes}
        for name, count in {**counts, "minibatches": minibatches}.items():
            if count < 1:
                raise UserError(f"{name}={count} of ActorCriticTask must be at least 1.")
        for name, weight in (("entropy", entropy), ("value", value)):
            if not weight >= 0:
                raise UserError(f"{name}={weight} of ActorCriticTask must be at least 0.")
        for name, share in (("discount", discount), ("decay", decay)):
            if not 0 <= share <= 1:
                raise UserError(f"{name}={share} of ActorCriticTask must lie in [0, 1].")
        for name, weight in (("clip", clip), ("gradient_norm", gradient_norm)):
            if not weight > 0:
                raise UserError(f"{name}={weight} of ActorCriticTask must be positive.")
        self.network, self.critic, self.optimizer = network, critic, optimizer
        self.steps, self.rollouts, self.passes = steps, rollouts, passes
        self.minibatches = minibatches
        self.discount, self.decay, self.clip = discount, decay, clip
        self.entropy, self.value, self.gradient_norm = entropy, value, gradient_norm
        # An epoch is many steps of the optimiser, on samples that the agent collects itself.
        self.automatic_optimization = False

    @property
    def environment(self) -> Environment:
        """That of the data."""
        environment: Environment = datamodule_of(self.trainer).environment
        return environment

    def setup(self, stage: str) -> None:
        """Raises a UserError where the data or a network does not fit."""
        data = datamodule_of(self.trainer)
        if not isinstance(getattr(data, "environment", None), Environment):
            raise UserError(
                f"ActorCriticTask acts in an environment, which {type(data).__name__} does not "
                "have; use EnvironmentDataModule."
            )
        samples = self.steps * data.epochs(processes_of(self.trainer))[0].last_size
        if stage == "fit" and samples < 2 * self.minibatches:
            raise UserError(
                f"minibatches={self.minibatches} of ActorCriticTask must hold two samples each, to "
                f"normalise advantages, but a rollout of a process has {samples}; set fewer, or "
                "more steps or environments."
            )
        seen = two_samples(data, self).inputs[0]
        for name, outputs in (("network", self.environment.actions), ("critic", 1)):
            try:
                with isolate_rng(), evaluating(self), torch.no_grad():
                    found = list(getattr(self, name)(seen).shape)
            except UserError:
                raise
            except Exception as error:  # of a network that is not of this package
                raise UserError(
                    f"the {name} of ActorCriticTask cannot take observations of "
                    f"{list(seen.shape[1:])}, those of {type(self.environment).__name__}: "
                    f"{reason(error)}"
                ) from error
            if found != [2, outputs]:
                raise UserError(
                    f"the {name} of ActorCriticTask gives {found} for 2 observations of "
                    f"{type(self.environment).__name__}, but must give [2, {outputs}]."
                )

    def forward(self, *views: Tensor) -> Tensor:
        """Logits [B, actions] of observations [B, ...]."""
        logits: Tensor = self.network(*views)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The rollouts of an epoch, each with its updates; the mean loss."""
        guidances = [one.guidance for one in open_windows(self.trainer, GuidanceWindow)]
        episodes = self.environment.episodes("train", batch.index, self.device)
        episodes.restart(torch.ones_like(batch.index, dtype=torch.bool))
        measured = []
        for _ in range(self.rollouts):
            samples, reward = self._collect(episodes, guidances)
            measured += [
                (loss, entropy, reward) for loss, entropy in self._update(samples, guidances)
            ]
        loss, entropy, reward = torch.tensor(measured).mean(0)
        for key, value in (("loss", loss), ("entropy", entropy), ("reward", reward)):
            self.log_mean(f"train/{key}", value, 1, sync_dist=True)
        return loss

    def _see(self, episodes: Episodes) -> Tensor:
        return episodes.observe().to(self.dtype)

    @torch.no_grad()
    def _collect(
        self, episodes: Episodes, guidances: list[Guidance]
    ) -> tuple[dict[str, Tensor], Tensor]:
        """A rollout's samples [T · B, ...], and the mean reward of the environment alone."""
        rows: dict[str, list[Tensor]] = {}
        imitates, own = any(one.imitates for one in guidances), []
        for _ in range(self.steps):
            seen = self._see(episodes)
            logs = self.network(seen).log_softmax(1)
            actions = logs.exp().multinomial(1)
            row = {"seen": seen, "actions": actions[:, 0], "before": logs.gather(1, actions)[:, 0]}
            row["values"] = self.critic(seen)[:, 0]
            if imitates:
                row["expert"] = episodes.best_actions()
            before = episodes.progress() if guidances else None
            step = episodes.step(actions[:, 0])
            own.append(step.reward.mean())
            reward = step.reward
            if before is not None:
                after = episodes.progress()
                for guidance in guidances:
                    reward = reward + guidance.reward(before, after, self.discount)
            if step.truncated.any():
                cut = self.critic(self._see(episodes))[:, 0] * step.truncated
                reward = reward + self.discount * cut
            row |= {"rewards": reward, "ended": step.terminated | step.truncated}
            episodes.restart(row["ended"])
            for name, value in row.items():
                rows.setdefault(name, []).append(value)
        found = {name: torch.stack(values) for name, values in rows.items()}
        last = self.critic(self._see(episodes))[:, 0]
        rewards, values, ended = (found.pop(name) for name in ("rewards", "values", "ended"))
        settings = (self.discount, self.decay)
        found["advantage"] = advantages(rewards, values, last, ended, *settings)
        found["returns"] = found["advantage"] + values
        return {name: value.flatten(0, 1) for name, value in found.items()}, torch.stack(own).mean()

    def _update(
        self, samples: dict[str, Tensor], guidances: list[Guidance]
    ) -> list[tuple[float, float]]:
        """Trains on a rollout; the loss and the entropy of each minibatch."""
        optimizer: Any = self.optimizers()
        count, measured = len(samples["actions"]), []
        for _ in range(self.passes):
            for part in torch.randperm(count).to(self.device).tensor_split(self.minibatches):
                some = {name: value[part] for name, value in samples.items()}
                logits, values = self.network(some["seen"]), self.critic(some["seen"])[:, 0]
                advantage = some["advantage"] - some["advantage"].mean()
                advantage = advantage / (some["advantage"].std() + 1e-8)
                taken = (some["actions"], some["before"], advantage, some["returns"])
                policy, value, entropy = losses(logits, values, *taken, clip=self.clip)
                loss = policy + self.value * value - self.entropy * entropy
                for guidance in guidances:
                    if guidance.imitates:
                        loss = loss + guidance.loss(logits, some["expert"])
                optimizer.zero_grad()
                self.manual_backward(loss)
                nn.utils.clip_grad_norm_(self.parameters(), self.gradient_norm)
                optimizer.step()
                measured.append((float(loss.detach()), float(entropy.detach())))
        return measured

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Plays the episodes of a batch to their ends."""
        self._play("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Likewise."""
        self._play("test", batch)

    def _play(self, stage: str, batch: Batch) -> None:
        episodes = self.environment.episodes("val", batch.index, self.device)
        # Drawn the same in every epoch, whatever was drawn before.
        draws = torch.Generator(self.device).manual_seed(fold(FIXED_SEED, self.global_rank))
        total = torch.zeros(len(batch.index), device=self.device)
        plays = torch.ones_like(total, dtype=torch.bool)
        success = torch.zeros_like(total)
        while plays.any():
            actions = self.network(self._see(episodes)).softmax(1).multinomial(1, generator=draws)
            step = episodes.step(actions[:, 0])
            total = total + step.reward * plays
            success = success + (step.succeeded & plays)
            plays = plays & ~(step.terminated | step.truncated)
        self.log_mean(f"{stage}/success", success.mean(), len(total), sync_dist=True)
        self.log_mean(f"{stage}/return", total.mean(), len(total), sync_dist=True)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities of actions [B, actions]."""
        return self(*batch.inputs).softmax(1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser; a UserError if a setting of it has no meaning, such as a negative rate."""
        return build_optimizer(self.optimizer, self.parameters())
