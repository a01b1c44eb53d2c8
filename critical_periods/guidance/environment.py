"""What an agent acts in: a kind of environment, and episodes of it that are played side by side."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Progress(NamedTuple):
    """How far episodes are from their goal.

    Attributes:
        remaining: steps of the shortest way from here to the goal, [B]; 0 at the goal.
        subgoals: how many of the subgoals on that way are reached, [B].
    """

    remaining: Tensor
    subgoals: Tensor


class Step(NamedTuple):
    """What a step of several episodes brings.

    Attributes:
        reward: of the environment itself, [B].
        terminated: whether an episode has ended for good, [B].
        truncated: whether it was cut off, though more rewards might have come, [B].
        succeeded: whether it has ended in success, [B].
    """

    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    succeeded: Tensor


class Episodes(ABC):
    """Episodes that are played side by side; the state is in here."""

    @abstractmethod
    def observe(self) -> Tensor:
        """What the agent sees, float32 [B, ...]."""

    @abstractmethod
    def step(self, actions: Tensor) -> Step:
        """Takes one action [B] in each; those that end stay at their end."""

    @abstractmethod
    def restart(self, ended: Tensor) -> None:
        """Begins another training episode where one has ended, [B], by torch's random numbers."""

    def progress(self) -> Progress:
        """How far each is from its goal."""
        raise NotImplementedError

    def best_actions(self) -> Tensor:
        """Probabilities of the actions of an expert, [B, actions]."""
        raise NotImplementedError


class Environment(ABC):
    """A kind of environment with a numbered set of episodes for each split.

    Attributes:
        actions: how many actions there are.
        has_goal: whether its episodes know their ``progress`` and ``best_actions``.
        sizes: how many episodes the splits ``train`` and ``val`` have.
    """

    actions: int
    has_goal: bool = False
    sizes: dict[str, int]

    @abstractmethod
    def episodes(self, split: str, numbers: Tensor, device: torch.device | str) -> Episodes:
        """The episodes of a split with these numbers, at their beginning."""

    @abstractmethod
    def samples(self, split: str, numbers: Tensor, device: torch.device | str) -> Tensor:
        """An observation of each of these episodes to measure a network on, always the same."""

    @abstractmethod
    def contents(self) -> Iterable[Any]:
        """What tells this environment from others, as buffers for the fingerprint."""
