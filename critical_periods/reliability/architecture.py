"""What the network of a deep kernel looks like, and the grid that one is chosen from."""

from dataclasses import dataclass

from critical_periods.core.errors import UserError


@dataclass(frozen=True)
class Architecture:
    """The network that makes a few latent coordinates of the inputs.

        z = A [x, x², x³] + network(x)

    Args:
        latent: how many coordinates z has; 0 for no network, a GP on the inputs themselves.
        hidden: widths of the hidden layers of the network, with tanh; none for z = A [x, ...].
        powers: up to which power the inputs enter A: 1 for x alone, 3 at most.

    Raises:
        UserError: a number is out of range.

    Example:
        >>> str(Architecture(2, (32,), powers=2))
        '2 latent, powers 2, hidden 32'
    """

    latent: int
    hidden: tuple[int, ...] = ()
    powers: int = 1

    def __post_init__(self) -> None:
        if self.latent < 0 or self.powers not in (1, 2, 3) or min(self.hidden, default=1) < 1:
            raise UserError(
                f"{self!r} is none; latent is a whole number from 0 on, each hidden width one from "
                "1 on, and powers 1, 2 or 3."
            )

    def __str__(self) -> str:
        if not self.latent:
            return "plain GP"
        parts = [f"{self.latent} latent", f"powers {self.powers}"]
        return ", ".join(parts + [f"hidden {one}" for one in self.hidden])


PLAIN = Architecture(0)
"""No network: an ordinary GP, with a length scale for each input."""

GRID = (
    Architecture(1), Architecture(1, powers=2),
    Architecture(2, (32,)), Architecture(2, (32,), powers=2),
)  # fmt: skip
"""The architectures that :class:`DeepKernelGP` chooses from by default."""


@dataclass(frozen=True)
class Choice:
    """An architecture and for how many steps it is trained.

    Args:
        architecture: of the network.
        pretraining_steps: of the network alone, on squared errors.
        training_steps: of network and GP together, on the marginal likelihood.
        noise: variance that the likelihood starts from, as a share of that of the targets.
        log_likelihood: mean of a held-out point, targets standardised.
    """

    architecture: Architecture
    pretraining_steps: int
    training_steps: int
    noise: float
    log_likelihood: float = float("nan")
