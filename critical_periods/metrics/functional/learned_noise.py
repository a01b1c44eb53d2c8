"""Information in the weights of each layer, from the noise that the loss tolerates."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, softplus

from critical_periods.core.errors import UserError, near
from critical_periods.metrics.functional.fisher import evaluating, layer_of, trained_parameters

# T · mean(w²) of a layer, in nats, at which the search starts: those of trained All-CNNs lie
# between 0.1 and 10. The search recovers soon from too little noise, not from too much.
_START = 10.0


class WeightInformation(NamedTuple):
    """The result of :func:`weight_information`.

    Attributes:
        nats: the information of each layer, float64 scalars; that of the network is their sum.
        variances: the noise of each layer, σ², in squared units of weight.
        loss: the mean loss per sample under that noise.
    """

    nats: dict[str, Tensor]
    variances: dict[str, Tensor]
    loss: Tensor


def weight_information(
    network: nn.Module,
    batches: Sequence[tuple[Sequence[Tensor], Tensor]],
    price: float,
    steps: int = 400,
    lr: float = 0.2,
    layers: Sequence[str] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    generator: torch.Generator | None = None,
) -> WeightInformation:
    """Information in the weights of each layer, in nats, by learned noise.

    Gaussian noise ε of one variance σ² a layer is added to the weights w. With n weights in a layer
    and the price β, the variances minimise

        E_ε[mean loss per sample at w + ε] + β Σ_layers KL(N(w, σ² I) || N(0, λ² I)).

    The prior's λ² is the best one for the layer: dKL/dλ² = 0 at λ² = σ² + mean(w²), and there

        KL = n/2 · log(1 + mean(w²) / σ²),

    the capacity of n Gaussian channels. It tends to zero as noise grows and, unlike that of a fixed
    prior, is the same for c·w with noise c·ε, as under batch norm the scale of a layer has no
    effect. A layer of zeros has no information. The search is over log r, where r = σ² / mean(w²).

    β is the loss per sample, in nats, that one nat in the weights costs. At β = 1/N, N the size of
    the training set, N times the objective is a variational bound (a negative ELBO, with a fitted
    prior) on -log p(labels | images). A smaller price leaves less noise. Where the loss is
    quadratic the noise raises it by Σ βn/2 / (1 + r), so the price must be small compared with
    twice the tolerable loss over the number of weights.

    In closed form: a loss whose Hessian has the trace T on a layer's weights rises by σ² T/2, so
    at the optimum

        r² + r = β n / (T mean(w²)).

    This is exact for a linear model on X [N, D] with loss (y - Xw)²/2, where T = tr(XᵀX)/N. For
    cross-entropy and a price that leaves little noise, T is the layer's :func:`fisher_trace`, as
    far as the targets are distributed as the network predicts.

    Source: the first version of Achille, Rovere & Soatto, *Critical Learning Periods in Deep
    Networks*. One variance a layer, over weights and biases, and the fitted prior are this
    package's choices.

    Args:
        network: takes one tensor a view. It is in evaluation mode and without autocast during the
            call; modes, parameters, gradients and buffers are left as they were. Parameters that do
            not require a gradient get no noise; a shared one counts once.
        batches: ``(views, target)``, where ``views`` has one batch [B, ...] a view. Each step takes
            the next of them; some 32 samples suffice, as the noise varies more than the samples.
        price: β.
        steps: of Adam on log r, each with a draw ε and its mirror image -ε. The rate falls
            linearly to zero, and log r is averaged over the second half. For a layer that has no
            effect the nats tend to zero with more steps.
        lr: the initial rate of Adam.
        layers: the layers that get noise; by default all. A layer alone tolerates more noise than
            among others that have noise.
        loss: from the network's output and the target to the mean loss over the batch, in nats.
        generator: of the noise; by default a new one with seed 0.

    Returns:
        Nats, variances and the loss under the noise. Layers are those of
        :func:`squared_score_norms`: modules that own parameters, or "root".

    Raises:
        UserError: there is no batch, no parameter that requires a gradient, or no such layer;
            price, steps or rate are not positive.

    Example:
        >>> network = nn.Linear(100, 1, bias=False)
        >>> _ = nn.init.ones_(network.weight)
        >>> x = torch.eye(100) * 10  # T = tr(XᵀX)/N = 100
        >>> def half_square(output, target):
        ...     return (output - target).square().mean() / 2
        >>> found = weight_information(network, [([x], x.sum(1, True))], 2.0, loss=half_square)
        >>> found.variances  # r² + r = 2 · 100 / 100: σ² = r = 1, and 50 log 2 = 34.66 nats
        {'root': tensor(1.0, dtype=torch.float64)}
    """
    check_settings("weight_information", price=price, steps=steps, lr=lr)
    batches = list(batches)
    if not batches:
        raise UserError("batches is empty; give at least one batch of views and target.")
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    layer = noisy_parameters(network, layers)
    names = list(dict.fromkeys(layer.values()))
    place = {parameter: names.index(name) for parameter, name in layer.items()}
    sizes, power = _sizes_and_power({name: parameters[name] for name in place}, place)
    # Copies, should a network write into its buffers even in evaluation mode.
    buffers = {name: buffer.detach().clone() for name, buffer in network.named_buffers()}
    samples = sum(len(target) for _, target in batches)
    generator = generator or torch.Generator(sizes.device).manual_seed(0)

    # The r with r² + r = ratio, without the cancellation of the usual formula.
    ratio = price * sizes / _START
    log_r = (2 * ratio / (1 + (1 + 4 * ratio).sqrt())).log().requires_grad_()
    optimizer = torch.optim.Adam([log_r], lr)
    mean_log_r, mean_loss = torch.zeros_like(power), torch.zeros_like(power[0])
    averaged = range(steps // 2, steps)
    exact = torch.autocast(sizes.device.type, enabled=False)
    with evaluating(network), torch.enable_grad(), exact:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            views, target = batches[step % len(batches)]
            weight = len(target) * len(batches) / samples  # so that samples count alike
            noise = {name: _normal(parameters[name], generator) for name in place}
            log_r.grad = torch.zeros_like(log_r)
            for sign in (1, -1):
                sigma = sign * power.sqrt() * (log_r / 2).exp()
                noisy = {
                    name: parameters[name] + sigma[i].to(parameters[name].dtype) * noise[name]
                    for name, i in place.items()
                }
                output = functional_call(network, parameters | buffers | noisy, tuple(views))
                half = loss(output, target) * weight / 2
                objective = half + price / 2 * _nats(sizes, log_r).sum()
                log_r.grad += torch.autograd.grad(objective, log_r)[0]
                if step in averaged:
                    mean_loss += half.detach() / len(averaged)
            optimizer.step()
            if step in averaged:
                mean_log_r += log_r.detach() / len(averaged)

    nats = torch.where(power == 0, 0.0, _nats(sizes, mean_log_r))
    variances = power * mean_log_r.exp()
    return WeightInformation(
        dict(zip(names, nats, strict=True)), dict(zip(names, variances, strict=True)), mean_loss
    )


def check_settings(owner: str, **settings: float) -> None:
    """Raises a UserError unless each setting of ``owner`` is positive and finite."""
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise UserError(f"{name}={value} of {owner} must be a number greater than 0.")


def noisy_parameters(network: nn.Module, layers: Sequence[str] | None) -> dict[str, str]:
    """The names of the parameters that get noise, each with its layer.

    Raises:
        UserError: nothing in the network can be trained, or there is no such layer.

    Example:
        >>> noisy_parameters(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ["1"])
        {'1.weight': '1', '1.bias': '1'}
    """
    found = {name: layer_of(name) for name in trained_parameters(network)}
    if layers is None:
        return found
    if not layers or isinstance(layers, str):
        raise UserError(f"layers={layers!r} must be a list of names of layers.")
    for layer in layers:
        if layer not in found.values():
            raise UserError(
                f"layers names {layer!r}, which is no layer of the network with weights of its "
                f"own that require a gradient; {near(layer, found.values())}"
            )
    return {name: layer for name, layer in found.items() if layer in layers}


def _sizes_and_power(parameters: dict[str, Tensor], place: dict[str, int]) -> tuple[Tensor, Tensor]:
    """The number n of weights in each layer, and their mean square."""
    device = next(iter(parameters.values())).device
    sizes = torch.zeros(max(place.values()) + 1, dtype=torch.float64, device=device)
    squares = torch.zeros_like(sizes)
    for name, parameter in parameters.items():
        sizes[place[name]] += parameter.numel()
        squares[place[name]] += parameter.double().square().sum()
    return sizes, squares / sizes


def _nats(sizes: Tensor, log_r: Tensor) -> Tensor:
    return sizes / 2 * softplus(-log_r)  # n/2 · log(1 + 1/r)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype)
    return noise.to(like.device)
