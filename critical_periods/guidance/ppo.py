"""Proximal policy optimisation: what is collected, what it was worth, and the loss on it."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def advantages(
    rewards: Tensor, values: Tensor, last: Tensor, ended: Tensor, discount: float, decay: float
) -> Tensor:
    """Generalised advantage estimates.

        A_t = δ_t + γ λ (1 - e_t) A_(t+1),   δ_t = r_t + γ (1 - e_t) V(s_(t+1)) - V(s_t)

    Where an episode is cut off, γ V of its last state belongs into ``rewards``.

    Source: Schulman et al., *High-Dimensional Continuous Control Using GAE* (ICLR 2016).

    Args:
        rewards: r, [T, B].
        values: V(s_t), [T, B].
        last: V(s_T), [B].
        ended: e, whether an episode ended with step t, [T, B].
        discount: γ.
        decay: λ.

    Returns:
        [T, B].

    Example:
        >>> one = torch.ones(2, 1)
        >>> advantages(one, 0 * one, torch.zeros(1), 0 * one, discount=0.5, decay=1.0).flatten()
        tensor([1.5000, 1.0000])
    """
    found = torch.zeros_like(rewards)
    after, goes_on = torch.cat([values[1:], last[None]]), 1 - ended.to(rewards.dtype)
    ahead = torch.zeros_like(last)
    for t in reversed(range(len(rewards))):
        step = rewards[t] + discount * goes_on[t] * after[t] - values[t]
        found[t] = ahead = step + discount * decay * goes_on[t] * ahead
    return found


class Losses(NamedTuple):
    """The parts of PPO's loss, each a mean over a minibatch."""

    policy: Tensor
    value: Tensor
    entropy: Tensor


def losses(
    logits: Tensor,
    values: Tensor,
    actions: Tensor,
    before: Tensor,
    advantage: Tensor,
    returns: Tensor,
    clip: float,
) -> Losses:
    """PPO's clipped objective, the critic's squared error, and the policy's entropy.

        policy  = -mean min(ρ A, clip(ρ, 1 - ε, 1 + ε) A),   ρ = π(a|s) / π_old(a|s)
        value   = mean (V(s) - R)²
        entropy = mean -Σ_a π(a|s) log π(a|s)

    Source: Schulman et al., *Proximal Policy Optimization Algorithms* (arXiv 1707.06347).

    Args:
        logits: of π, [N, A].
        values: V, [N].
        actions: a, that were taken, [N].
        before: log π_old(a|s), [N].
        advantage: A, [N]; of mean 0 and standard deviation 1 in each minibatch, usually.
        returns: R, [N].
        clip: ε.

    Example:
        >>> one = torch.ones(1)
        >>> before = torch.tensor([-1.3862944])  # log 1/4
        >>> losses(torch.zeros(1, 4), one, torch.tensor([2]), before, one, 3 * one, clip=0.2)
        Losses(policy=tensor(-1.), value=tensor(4.), entropy=tensor(1.3863))
    """
    logs = logits.log_softmax(1)
    ratio = (logs.gather(1, actions[:, None])[:, 0] - before).exp()
    clipped = ratio.clamp(1 - clip, 1 + clip)
    policy = -torch.minimum(ratio * advantage, clipped * advantage).mean()
    return Losses(policy, F.mse_loss(values, returns), -(logs.exp() * logs).sum(1).mean())
