"""The Gaussian process on the latent coordinates, and joint training: all that needs gpytorch."""

from collections.abc import Iterator

import gpytorch
import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor, nn

# Steps of Adam, after how many the GP is looked at, and the rates: of a network, of the GP on it,
# which starts near where it ends, and of a GP alone.
TRAINING_STEPS, TRAINING_EVERY = 40, 10
_NETWORK_RATE, _RATE, _ALONE_RATE = 1e-3, 0.03, 0.1
LEAST_NOISE = 1e-6
# Points of one prediction at once: gpytorch makes their joint covariance, or one with the data.
_CHUNK = 1000


class ExactGP(gpytorch.models.ExactGP):
    """y = c + f(z(x)) + noise, f of covariance s² exp(-Σ (z - z')² / 2 l²), an l a coordinate.

    Standardised inputs [n, d] and targets [n], float64.
    """

    def __init__(self, x: Tensor, y: Tensor, network: nn.Module, noise: float) -> None:
        constraint = gpytorch.constraints.GreaterThan(LEAST_NOISE)
        likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=constraint)
        super().__init__(x, y, likelihood)
        self.network = network
        with torch.no_grad():
            coordinates = network(x).shape[1]
        self.mean = gpytorch.means.ConstantMean()
        self.kernel = gpytorch.kernels.ScaleKernel(
            gpytorch.kernels.RBFKernel(ard_num_dims=coordinates)
        )
        self.double()
        # Off the wall of the constraint, where gradients vanish.
        self.likelihood.noise = max(noise, 10 * LEAST_NOISE)
        self.kernel.outputscale = 4.0
        self.kernel.base_kernel.lengthscale = 3.0 * coordinates**0.5

    def forward(self, x: Tensor) -> MultivariateNormal:
        """The prior at the inputs, as gpytorch asks for it."""
        z = self.network(x)
        return MultivariateNormal(self.mean(z), self.kernel(z))


def train(gp: ExactGP, steps: int, joint: bool) -> Iterator[int]:
    """Maximises the marginal likelihood, of network and GP together or of the GP alone.

    Gives the step now and then, and 0 first.
    """
    likelihood = gpytorch.mlls.ExactMarginalLogLikelihood(gp.likelihood, gp)
    of_network = list(gp.network.parameters()) if joint else []
    theirs = {id(one) for one in gp.network.parameters()}
    of_gp = [one for one in gp.parameters() if id(one) not in theirs]
    rate = _RATE if theirs else _ALONE_RATE
    groups = [{"params": of_gp, "lr": rate}, {"params": of_network, "lr": _NETWORK_RATE}]
    optimizer = torch.optim.Adam([one for one in groups if one["params"]], fused=True)
    (x,), y = gp.train_inputs, gp.train_targets
    yield 0
    for step in range(1, steps + 1):
        gp.train()
        optimizer.zero_grad()
        with exact():
            (-likelihood(gp(x), y)).backward()
        optimizer.step()
        if step % TRAINING_EVERY == 0:
            yield step


def predict(gp: ExactGP, x: Tensor, with_sd: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of f, [n] each; the latter of zeros where it is not wanted."""
    gp.eval()
    means, sds = [], []
    with torch.no_grad(), exact(), gpytorch.settings.skip_posterior_variances(not with_sd):
        for part in x.split(_CHUNK):
            found = gp(part)
            means.append(found.mean)
            sds.append(found.stddev if with_sd else torch.zeros_like(found.mean))
    return torch.cat(means), torch.cat(sds)


def covariance(gp: ExactGP, x: Tensor) -> Tensor:
    """The covariance of f between points, [n, n]."""
    gp.eval()
    with torch.no_grad(), exact():
        return gp(x).covariance_matrix


def log_likelihood(gp: ExactGP, x: Tensor, y: Tensor) -> Tensor:
    """log p(y | x) of each new point with its noise, [n]."""
    mean, sd = predict(gp, x)
    spread = (sd**2 + gp.likelihood.noise.detach()).sqrt()
    return torch.distributions.Normal(mean, spread).log_prob(y)


def exact() -> gpytorch.settings.max_cholesky_size:
    """Cholesky factors of every size, instead of iterations that end early."""
    return gpytorch.settings.max_cholesky_size(1_000_000)
