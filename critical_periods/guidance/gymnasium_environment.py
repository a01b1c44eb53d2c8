"""Environments of gymnasium and of the packages that register theirs with it."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from critical_periods.core.errors import UserError, reason
from critical_periods.guidance.environment import Environment, Episodes, Step


class Gymnasium(Environment):
    """An environment by its name in gymnasium, played by its vector interface on the CPU.

    Observations are arrays, or dictionaries with the array ``image``; actions are discrete. An
    episode is a success that ends with at least the return that its environment calls solved
    (475 for ``CartPole-v1``), or, where that is not known, at an end that it has reached with a
    return above 0. It knows no goal, so that only guidances of your own can guide in it. Monitors
    measure on the first observations of episodes.

    It needs the extra ``rl``: ``pip install 'critical-periods[rl]'``.

    Args:
        name: such as ``CartPole-v1``, or ``minigrid:MiniGrid-DoorKey-5x5-v0``, which imports the
            package ``minigrid`` first.
        episodes: numbers of training episodes, by which they are seeded.
        val_episodes: that are validated on, of other seeds.

    Raises:
        UserError: gymnasium, the environment's package or the environment is not installed, or its
            actions or observations are of another kind.
    """

    def __init__(self, name: str, episodes: int = 1 << 20, val_episodes: int = 100) -> None:
        for setting, value in (("episodes", episodes), ("val_episodes", val_episodes)):
            if value < 1:
                raise UserError(f"{setting}={value} of Gymnasium must be at least 1.")
        self.name, self.sizes = name, {"train": episodes, "val": val_episodes}
        environment = self.make(1)
        spec, space = environment.spec, environment.single_action_space
        if not isinstance(space, _gymnasium().spaces.Discrete):
            raise UserError(f"the actions of {name!r} are of {space}, but must be discrete.")
        self.actions = int(space.n)
        self.threshold = None if spec is None else spec.reward_threshold
        _array(name, environment.reset(seed=[0])[0])
        environment.close()

    def make(self, count: int) -> Any:
        """So many of them side by side, which wait at the end of an episode."""
        gymnasium = _gymnasium()
        waits = {"autoreset_mode": gymnasium.vector.AutoresetMode.DISABLED}
        try:
            return gymnasium.make_vec(
                self.name, count, vectorization_mode="sync", vector_kwargs=waits
            )
        except (gymnasium.error.Error, ImportError) as error:
            raise UserError(
                f"name={self.name!r} of Gymnasium cannot be made: {reason(error)}; install the "
                "package that has it, and name that, too, as in "
                "minigrid:MiniGrid-DoorKey-5x5-v0."
            ) from error

    def episodes(
        self, split: str, numbers: Tensor, device: torch.device | str
    ) -> "GymnasiumEpisodes":
        """Episodes with these numbers, just reset; no seed is of both splits."""
        first = self.sizes["train"] if split == "val" else 0
        return GymnasiumEpisodes(self, (numbers + first).tolist(), device)

    def samples(self, split: str, numbers: Tensor, device: torch.device | str) -> Tensor:
        """The first observation of each of these episodes."""
        return self.episodes(split, numbers, device).observe()

    def contents(self) -> Iterator[Any]:
        """The name, the version of gymnasium, and how many episodes there are."""
        yield f"{self.name} {_gymnasium().__version__} {self.sizes}".encode()


class GymnasiumEpisodes(Episodes):
    """A vector environment, the latest observations [B, ...] and the returns so far [B]."""

    def __init__(self, kind: Gymnasium, seeds: list[int], device: torch.device | str) -> None:
        self.kind, self.device = kind, device
        self.vector = kind.make(len(seeds))
        self._seen, _ = self.vector.reset(seed=seeds)
        self._ended = np.zeros(len(seeds), dtype=bool)
        self._total = np.zeros(len(seeds))

    def observe(self) -> Tensor:
        """The latest observations."""
        return _array(self.kind.name, self._seen).to(self.device)

    def step(self, actions: Tensor) -> Step:
        """Steps those that go on; the others have no more rewards."""
        if self._ended.any():
            # Gymnasium does not step what has ended: begin it anew, and look away.
            self.vector.reset(options={"reset_mask": self._ended})
        self._seen, reward, terminated, truncated, _ = self.vector.step(actions.cpu().numpy())
        reward = np.where(self._ended, 0.0, reward)
        terminated = terminated | self._ended
        # A limit of time says so of what ends at it, too, which has no value to come.
        truncated = truncated & ~terminated
        self._total += reward
        self._ended = terminated | truncated
        good, threshold = self._total > 0, self.kind.threshold
        if threshold is None:
            succeeded = terminated & good
        else:
            succeeded = self._ended & (self._total >= threshold)
        parts = (reward.astype(np.float32), terminated, truncated, succeeded)
        return Step(*(torch.from_numpy(one).to(self.device) for one in parts))

    def restart(self, ended: Tensor) -> None:
        """Begins those that have ended with other seeds of training."""
        seeds = torch.randint(self.kind.sizes["train"], ended.shape).tolist()
        mask = ended.cpu().numpy()
        if mask.any():
            self._seen, _ = self.vector.reset(seed=seeds, options={"reset_mask": mask})
            self._ended, self._total = self._ended & ~mask, np.where(mask, 0.0, self._total)


def _array(name: str, seen: Any) -> Tensor:
    """The observations that are an array, as float32."""
    found = seen.get("image") if isinstance(seen, dict) else seen
    if not isinstance(found, np.ndarray) or found.ndim < 2:
        raise UserError(
            f"an observation of {name!r} is neither an array nor a dictionary with an 'image'; "
            "choose an environment, or a wrapper of it, that gives one."
        )
    return torch.from_numpy(found.astype(np.float32))


def _gymnasium() -> ModuleType:
    try:
        import gymnasium
    except ImportError as error:
        raise UserError(
            "Gymnasium needs the package gymnasium, which is not installed: "
            "pip install 'critical-periods[rl]'; FourRooms needs nothing else."
        ) from error
    return gymnasium
