"""Fisher trace and informations of all three likelihoods, against loops in float64."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal
from torch.nn import functional as F

from critical_periods.core.errors import UserError
from critical_periods.metrics import FisherTrace, UsableInformation
from critical_periods.metrics.functional import (
    fisher_trace,
    mean_loss,
    usable_information,
    weight_information,
)


class Squeezed(nn.Module):
    """One logit [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).squeeze(1)


def network(outputs: int) -> nn.Module:
    torch.manual_seed(1)
    if not outputs:
        return Squeezed()
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, outputs))


X = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))


def log_probability(z: Tensor, y: Tensor, likelihood: str) -> Tensor:
    if likelihood == "categorical":
        return z.log_softmax(0)[int(y)]
    make = Bernoulli(logits=z) if likelihood == "bernoulli" else Normal(z, torch.ones_like(z))
    return make.log_prob(y.to(z)).sum()


def loop(net: nn.Module, likelihood: str) -> float:
    """Tr F sample by sample and label by label; a Gaussian by its Hessian, which is that of y."""
    net = copy.deepcopy(net).double()
    parameters, total = list(net.parameters()), 0.0
    for x in X.double():
        z = net(x[None]).reshape(-1)
        if likelihood == "gaussian":
            # F = E s sᵀ with s = Jᵀ (y - z): the sum of squared Jacobian rows.
            for one in z:
                grads = torch.autograd.grad(one, parameters, retain_graph=True)
                total += sum(float(g.square().sum()) for g in grads)
            continue
        labels = range(len(z))
        if likelihood == "bernoulli":
            labels = itertools.product((0, 1), repeat=len(z))
        for label in labels:
            log_p = log_probability(z, torch.tensor(label), likelihood)
            grads = torch.autograd.grad(log_p, parameters, retain_graph=True)
            total += math.exp(float(log_p)) * sum(float(g.square().sum()) for g in grads)
    return total / len(X)


KINDS = [("categorical", 4), ("bernoulli", 0), ("bernoulli", 1), ("bernoulli", 3)]
KINDS += [("gaussian", 0), ("gaussian", 1), ("gaussian", 3)]


@pytest.mark.parametrize(("likelihood", "outputs"), KINDS)
def test_fisher_is_the_expectation_over_all_labels(likelihood, outputs):
    net = network(outputs)
    total, layers = fisher_trace(net, [X], likelihood=likelihood)
    assert float(total) == pytest.approx(loop(net, likelihood), rel=1e-5)
    metric = FisherTrace(net, likelihood=likelihood)
    metric.update(X[:3])
    metric.update(X[3:])
    assert float(metric.compute()[0]) == pytest.approx(float(total), rel=1e-6)
    assert metric.compute()[1].keys() == layers.keys()


class Recurrent(nn.Module):
    """Asks for a value, too, which vmap cannot give."""

    def __init__(self, layer: type[nn.RNNBase], asks: bool) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.head, self.asks = layer(2, 3, batch_first=True), nn.Linear(3, 4), asks

    def forward(self, x: Tensor) -> Tensor:
        steps = self.layer(x.view(len(x), 3, 2))[0]
        return self.head(steps[:, -1] if not self.asks or bool((x < 99).all()) else steps[:, 0])


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("layer", [nn.LSTM, nn.GRU])
def test_fisher_of_recurrent_networks_and_of_what_asks_for_values(layer, asks):
    net = Recurrent(layer, asks)
    assert float(fisher_trace(net, [X])[0]) == pytest.approx(loop(net, "categorical"), rel=1e-5)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_fisher_by_draws_tends_to_the_expectation(likelihood):
    net, draws = network(3), torch.Generator().manual_seed(0)
    drawn, _ = fisher_trace(net, [X], 400, draws, likelihood=likelihood)
    assert float(drawn) == pytest.approx(loop(net, likelihood), rel=0.1)


def targets(likelihood: str, outputs: int) -> Tensor:
    torch.manual_seed(2)
    shape = (len(X), outputs) if outputs else (len(X),)
    if likelihood == "categorical":
        return torch.randint(outputs, (len(X),))
    return torch.randint(2, shape) if likelihood == "bernoulli" else torch.randn(shape) * 2 + 9


def by_definition(z: Tensor, y: Tensor, likelihood: str) -> float:
    """H(Y) - L in bits: the loss of the best constant prediction less that of the network."""
    z, y = z.double().reshape(len(z), -1), y.reshape(len(y), -1)
    if likelihood == "categorical":
        share = torch.bincount(y[:, 0], minlength=z.shape[1]).double() / len(y)
        constant = share.log().expand_as(z)
        y = y[:, 0]
    else:
        mean = y.double().mean(0)
        constant = (mean.logit() if likelihood == "bernoulli" else mean).expand_as(z)
    losses = [
        -sum(float(log_probability(a, b, likelihood)) for a, b in zip(one, y, strict=True)) / len(y)
        for one in (constant, z)
    ]
    return (losses[0] - losses[1]) / math.log(2)


@pytest.mark.parametrize(("likelihood", "outputs"), KINDS)
def test_information_is_what_is_gained_on_the_best_constant(likelihood, outputs):
    z, y = network(outputs)(X).detach(), targets(likelihood, outputs)
    expected = by_definition(z, y, likelihood)
    assert float(usable_information(z, y, likelihood)) == pytest.approx(expected, abs=1e-6)
    metric = UsableInformation(max(outputs, 1), likelihood)
    for part in (slice(3), slice(3, None)):
        metric.update(z[part], y[part])
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)


def test_class_maps_are_a_class_at_each_place():
    torch.manual_seed(3)
    net, x = nn.Conv2d(1, 3, 3, padding=1), torch.randn(5, 1, 3, 2)
    parameters, wanted = list((double := copy.deepcopy(net).double()).parameters()), 0.0
    for log_p in double(x.double()).log_softmax(1):
        for one in log_p.flatten():
            grads = torch.autograd.grad(one, parameters, retain_graph=True)
            wanted += math.exp(one.item()) * sum(g.square().sum().item() for g in grads) / len(x)
    assert fisher_trace(net, [x])[0].item() == pytest.approx(wanted, rel=1e-5)
    drawn, _ = fisher_trace(net, [x], 400, torch.Generator().manual_seed(0))
    assert drawn.item() == pytest.approx(wanted, rel=0.05)

    z, y = net(x).detach(), torch.randint(3, (5, 3, 2))
    places = [(z[:, :, i, j], y[:, i, j]) for i in range(3) for j in range(2)]
    information = float(sum(usable_information(*place) for place in places))
    for target in (y, y[:, None]):
        assert float(usable_information(z, target)) == pytest.approx(information, abs=1e-6)
        assert mean_loss(z, target).item() == pytest.approx(
            sum(mean_loss(*place).item() for place in places), rel=1e-5
        )
    metric = UsableInformation(3, places=6)
    for part in (slice(2), slice(2, None)):
        metric.update(z[part], y[part])
    assert float(metric.compute()) == pytest.approx(information, abs=1e-6)
    with pytest.raises(UserError, match=r"shape \[5, 3, 1, 2\], not that of \[3, 6\] before"):
        metric.update(z[:, :, :1], y[:, :1])
    # Of two classes, as of a label of 0 or 1 at each place.
    logit, two = z[:, 1:2], torch.cat([z[:, 1:2] * 0, z[:, 1:2]], 1)
    assert float(usable_information(two, y % 2)) == pytest.approx(
        float(usable_information(logit, y % 2, "bernoulli")), abs=1e-6
    )


def test_labels_in_a_column_are_those_of_a_row():
    z, y = network(0)(X).detach(), targets("bernoulli", 0)
    flat = usable_information(z, y, "bernoulli")
    assert usable_information(z[:, None], y, "bernoulli") == flat
    assert usable_information(z, y[:, None].float(), "bernoulli") == flat


def test_weight_information_of_a_linear_regression_by_its_closed_form():
    """r² + r = β n / (T mean(w²)), where T is the Fisher trace of unit variance."""
    net = nn.Linear(20, 2, bias=False)
    nn.init.ones_(net.weight)
    x = torch.eye(20) * 3
    trace, _ = fisher_trace(net, [x], likelihood="gaussian")
    price = 2 * float(trace) / 40  # so that r = 1

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return mean_loss(z, y, "gaussian")

    found = weight_information(net, [([x], net(x).detach())], price, 200, loss=loss)
    assert float(found.nats["root"]) == pytest.approx(40 / 2 * math.log(2), rel=0.05)


def test_losses_are_those_of_torch():
    z, y = network(3)(X), targets("bernoulli", 3)
    wanted = F.binary_cross_entropy_with_logits(z, y.float()) * 3
    assert torch.allclose(mean_loss(z, y, "bernoulli"), wanted)
    y = targets("gaussian", 3)
    assert torch.allclose(mean_loss(z, y, "gaussian"), F.mse_loss(z, y) * 1.5)


ONE_HOT = F.one_hot(torch.tensor([0, 3, 1, 2])).float()
Z = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("outputs", "target", "likelihood", "sentence"),
    [
        (Z.softmax(1), torch.arange(4), "categorical", r"probabilities: the rows .* sum to one"),
        (ONE_HOT, torch.arange(4), "categorical", "sum to one"),
        (Z.half().softmax(1), torch.arange(4), "categorical", "sum to one"),
        (Z, Z[:, 0], "categorical", r"integer class indices \[N\], or set the likelihood"),
        (Z, torch.arange(4) + 1, "categorical", "targets run from 1 to 4 but logits have 4 cla"),
        (Z, torch.arange(4) - 1, "categorical", "targets run from -1 to 2"),
        (Z[:, :1], torch.arange(4) % 2, "categorical", "one logit .*likelihood='bernoulli'"),
        (Z[:, 0], torch.arange(4), "bernoulli", "targets run from 0 to 3; .* labels 0 and 1"),
        (Z, torch.arange(4) % 2, "bernoulli", r"shape \[4\] of torch.int64 but outputs \[4, 4\]"),
        (Z[:, :3], Z, "gaussian", "of as many numbers a sample"),
        (Z.long(), Z, "gaussian", "one tensor of floats"),
        (F.normalize(Z), torch.arange(4), "categorical", "rows of length one.*an embedding's"),
        (Z[..., None], torch.arange(4), "categorical", r"pixel or token.*class numbers \[4, 1\]"),
        (Z.view(2, 2, 4), Z[:2, :2].long(), "categorical", r"move classes to the second axis"),
    ],
)  # fmt: skip
def test_what_contradicts_the_likelihood_is_refused(outputs, target, likelihood, sentence):
    with pytest.raises(UserError, match=sentence):
        usable_information(outputs, target, likelihood)


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        ([nn.Linear(6, 4), nn.Softmax(1)], "network returned probabilities"),
        ([nn.Linear(6, 1)], r"returned shape \[7, 1\] .* for one logit .*'bernoulli'"),
        ([nn.Linear(6, 1), nn.Flatten(0)], r"returned shape \[7\]"),
        ([nn.LSTM(6, 4)], r"returned a <class 'tuple'> .* Project\(logits=0\)"),
    ],
)
def test_fisher_refuses_what_is_no_logits(layers, sentence):
    with pytest.raises(UserError, match=sentence):
        fisher_trace(nn.Sequential(*layers), [X])


def test_log_probabilities_are_logits():
    logits = network(4)
    log = nn.Sequential(*logits, nn.LogSoftmax(1))
    assert torch.allclose(fisher_trace(log, [X])[0], fisher_trace(logits, [X])[0])
