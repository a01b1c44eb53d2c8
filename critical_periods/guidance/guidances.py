"""What guides an agent for a while: rewards beside the environment's own, or an expert."""

from typing import ClassVar

import torch
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.guidance.environment import Environment, Progress


class Guidance:
    """A reward that is added to the environment's, a loss that is added to the agent's, or both.

    Args:
        weight: of what it adds.

    Raises:
        UserError: the weight is negative; by :meth:`check`, the environment has no goal.
    """

    imitates: ClassVar[bool] = False
    """Whether it has the agent imitate an expert's actions."""

    def __init__(self, weight: float = 1.0) -> None:
        if not 0 <= weight < float("inf"):
            raise UserError(f"weight={weight} of {type(self).__name__} must be 0 or more.")
        self.weight = weight

    def check(self, environment: Environment) -> None:
        """Raises a UserError where the environment has no goal to guide to."""
        if not environment.has_goal:
            raise UserError(
                f"{type(self).__name__} guides by the steps that are left to a goal, which "
                f"{type(environment).__name__} does not have; use FourRooms, or an Environment of "
                "your own with has_goal=True, progress() and best_actions()."
            )

    def reward(self, before: Progress, after: Progress, discount: float) -> Tensor:
        """What a step is worth, [B]: nothing."""
        return torch.zeros_like(after.remaining)

    def loss(self, logits: Tensor, expert: Tensor) -> Tensor:
        """What is added to the loss of a minibatch with these expert's actions: nothing."""
        return logits.new_zeros(())


class Potential(Guidance):
    """Pays for coming closer to the goal, in a way that leaves the best policies as they are.

        F(s, s') = γ Φ(s') - Φ(s),   Φ(s) = -weight · steps from s to the goal

    Along an episode it adds up to -Φ(s_0), whatever the agent does, so that every policy's value
    changes by the same number and the order of actions remains (Ng, Harada & Russell, ICML 1999).
    At the goal Φ is 0.

    Args:
        weight: of a step; a tenth of the reward at the goal, or less, is usual.

    Example:
        >>> one = Progress(torch.tensor([3.0]), torch.tensor([0.0]))
        >>> other = Progress(torch.tensor([2.0]), torch.tensor([0.0]))
        >>> Potential(weight=0.1).reward(one, other, discount=1.0)
        tensor([0.1000])
    """

    def __init__(self, weight: float = 0.05) -> None:
        super().__init__(weight)

    def reward(self, before: Progress, after: Progress, discount: float) -> Tensor:
        """γ Φ(s') - Φ(s)."""
        return self.weight * (before.remaining - discount * after.remaining)


class HelperReward(Guidance):
    """Pays ``weight`` for each subgoal, once an episode: for the key, then for the door.

    Args:
        weight: of a subgoal.

    Example:
        >>> one = Progress(torch.tensor([3.0]), torch.tensor([0.0]))
        >>> other = Progress(torch.tensor([2.0]), torch.tensor([1.0]))
        >>> HelperReward(weight=0.5).reward(one, other, discount=1.0)
        tensor([0.5000])
    """

    def __init__(self, weight: float = 0.5) -> None:
        super().__init__(weight)

    def reward(self, before: Progress, after: Progress, discount: float) -> Tensor:
        """``weight`` times the subgoals that the step has reached."""
        return self.weight * (after.subgoals - before.subgoals)


class MisleadingReward(Guidance):
    """The deficit: pays ``weight`` for each step that leads away from the goal.

    Steps towards it cost nothing, so that going to and fro is worth more than arriving, wherever
    weight / (1 - γ) is well above 1: the best policies are others.

    Args:
        weight: of a step.

    Example:
        >>> one = Progress(torch.tensor([3.0]), torch.tensor([0.0]))
        >>> other = Progress(torch.tensor([4.0]), torch.tensor([0.0]))
        >>> MisleadingReward(weight=0.2).reward(one, other, discount=0.99)
        tensor([0.2000])
    """

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__(weight)

    def reward(self, before: Progress, after: Progress, discount: float) -> Tensor:
        """``weight`` where more steps are left than before."""
        return self.weight * (after.remaining > before.remaining).float()


class Demonstration(Guidance):
    """Shows what an expert would do: adds the cross-entropy of its actions to the loss.

        weight · mean over states that the agent visits of -Σ_a π*(a|s) log π(a|s)

    π* has equal probabilities for the actions that begin a shortest way to the goal.

    Args:
        weight: of the cross-entropy.

    Example:
        >>> Demonstration(weight=1.0).loss(torch.zeros(2, 4), torch.eye(4)[:2])  # log 4
        tensor(1.3863)
    """

    imitates: ClassVar[bool] = True

    def __init__(self, weight: float = 0.1) -> None:
        super().__init__(weight)

    def loss(self, logits: Tensor, expert: Tensor) -> Tensor:
        """The weighted cross-entropy of the expert's probabilities [B, A]."""
        return self.weight * torch.nn.functional.cross_entropy(logits, expert)
