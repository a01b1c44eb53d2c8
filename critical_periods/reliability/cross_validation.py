"""The choice of an architecture, and of when to stop, by cross-validation."""

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from critical_periods.core.randomness import Stream, generator
from critical_periods.reliability.architecture import Architecture, Choice
from critical_periods.reliability.exact_gp import (
    TRAINING_STEPS,
    ExactGP,
    log_likelihood,
    train,
)
from critical_periods.reliability.network import (
    PRETRAINING_STEPS,
    Network,
    pretrain,
    squared_errors,
)


def fitted(choice: Choice, x: Tensor, y: Tensor, seed: int, joint: bool) -> ExactGP:
    """A GP on standardised x and y, trained as a choice says."""
    gp = _start(choice.architecture, x, y, seed, choice.pretraining_steps, choice.noise, None)
    for _ in train(gp, choice.training_steps, joint):
        pass
    return gp


def choose(
    architectures: Sequence[Architecture], x: Tensor, y: Tensor, folds: int, seed: int, joint: bool
) -> tuple[Choice, ...]:
    """Each architecture with its best numbers of steps, the best architecture first.

    Of each, the network alone is trained without every fold in turn, for as many steps as make the
    squared error of the fold least, on average over the folds; from there network and GP, for as
    many steps as make its log likelihood largest.
    """
    parts = list(_folds(len(x), folds, seed))
    choices = [_of_one(one, x, y, parts, seed, joint) for one in architectures]
    return tuple(sorted(choices, key=lambda one: -one.log_likelihood))


def _of_one(
    architecture: Architecture,
    x: Tensor,
    y: Tensor,
    parts: list[tuple[Tensor, Tensor]],
    seed: int,
    joint: bool,
) -> Choice:
    networks: list[dict[int, nn.Module]] = []
    errors: dict[int, float] = {}
    for rest, held in parts:
        kept: dict[int, nn.Module] = {}
        if architecture.latent:
            network = Network(architecture, x.shape[1], seed)
            for step in pretrain(network, x[rest], y[rest], PRETRAINING_STEPS):
                with torch.no_grad():
                    error = float(squared_errors(network, x[held], y[held]).mean())
                errors[step] = errors.get(step, 0.0) + error / len(parts)
                kept[step] = deepcopy(network)
        networks.append(kept)
    steps = min(errors, key=lambda step: errors[step]) if errors else 0
    noise = min(errors[steps], 0.5) if errors else 1e-2
    gained: dict[int, float] = {}
    for (rest, held), kept in zip(parts, networks, strict=True):
        gp = _start(architecture, x[rest], y[rest], seed, steps, noise, kept.get(steps))
        for step in train(gp, TRAINING_STEPS, joint):
            likelihood = float(log_likelihood(gp, x[held], y[held]).mean().nan_to_num(-math.inf))
            gained[step] = gained.get(step, 0.0) + likelihood / len(parts)
    best = max(gained, key=lambda step: gained[step])
    return Choice(architecture, steps, best, noise, gained[best])


def _start(
    architecture: Architecture,
    x: Tensor,
    y: Tensor,
    seed: int,
    steps: int,
    noise: float,
    network: nn.Module | None,
) -> ExactGP:
    """The GP before it is trained, on a network that was."""
    if not architecture.latent:
        return ExactGP(x, y, nn.Identity(), noise)
    if network is None:
        network = Network(architecture, x.shape[1], seed)
        for _ in pretrain(network, x, y, steps):
            pass
    assert isinstance(network, Network)
    network.scale(x)
    # It has done its part, and no marginal likelihood depends on it.
    network.head.requires_grad_(False)
    return ExactGP(x, y, network, noise)


def _folds(points: int, folds: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The places of the rest and of each fold."""
    order = torch.randperm(points, generator=generator("cpu", Stream.FOLDS, seed))
    for number in range(folds):
        held = order[number::folds]
        mask = torch.ones(points, dtype=torch.bool)
        mask[held] = False
        yield mask.nonzero()[:, 0], held
