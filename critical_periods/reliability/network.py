"""The network that reduces the dimension, and its training alone."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from critical_periods.core.randomness import Stream, generator
from critical_periods.reliability.architecture import Architecture

# Steps of AdamW at a constant rate, and after how many the network is looked at.
PRETRAINING_STEPS, PRETRAINING_EVERY = 300, 25
_RATE, _WEIGHT_DECAY = 0.01, 1e-3


class Network(nn.Module):
    """An :class:`Architecture`, from standardised inputs [n, d] to latent coordinates [n, q]."""

    def __init__(self, architecture: Architecture, dimension: int, seed: int) -> None:
        super().__init__()
        self.powers = architecture.powers
        draws = generator("cpu", Stream.DEEP_KERNEL, seed)
        self.direct = _linear(dimension * self.powers, architecture.latent, draws)
        layers: list[nn.Module] = []
        width = dimension
        for wider in architecture.hidden:
            layers += [_linear(width, wider, draws), nn.Tanh()]
            width = wider
        if layers:
            layers.append(_linear(width, architecture.latent, draws))
        self.layers = nn.Sequential(*layers)
        # To the target, in training alone.
        self.head = _linear(architecture.latent, 1, draws)

    def forward(self, x: Tensor) -> Tensor:
        """The latent coordinates."""
        # Powers of standardised inputs, without their mean as a normal variable has it.
        powers = [x, (x**2 - 1) / 2, (x**3 - 3 * x) / 6][: self.powers]
        z = self.direct(torch.cat(powers, dim=-1))
        return z + self.layers(x) if len(self.layers) else z

    def scale(self, x: Tensor) -> None:
        """Gives the latent coordinates of these inputs mean 0 and standard deviation 1."""
        with torch.no_grad():
            z = self(x)
            mean, sd = z.mean(0), z.std(0).clamp_min(1e-9)
            last = [layer for layer in self.layers if isinstance(layer, nn.Linear)][-1:]
            for layer in [self.direct, *last]:
                layer.weight.div_(sd[:, None])
                layer.bias.div_(sd)
            self.direct.bias.sub_(mean / sd)


def pretrain(network: Network, x: Tensor, y: Tensor, steps: int) -> Iterator[int]:
    """Trains the network and a linear head on squared errors; gives the step now and then."""
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY, fused=True
    )
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        squared_errors(network, x, y).mean().backward()
        optimizer.step()
        if step % PRETRAINING_EVERY == 0:
            yield step


def squared_errors(network: Network, x: Tensor, y: Tensor) -> Tensor:
    """Of the network and its head, [n]."""
    return (network.head(network(x))[:, 0] - y) ** 2


def _linear(width: int, wider: int, draws: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, width, wider, dtype=torch.float64)
    nn.init.normal_(layer.weight, std=width**-0.5, generator=draws)
    nn.init.zeros_(layer.bias)
    return layer
