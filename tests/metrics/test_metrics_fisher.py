"""The Fisher trace against a plain loop, nngeometry, closed forms and its own sampled version."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from nngeometry.layercollection import LayerCollection
from nngeometry.metrics import FIM
from nngeometry.object import PMatDiag, PMatImplicit
from torch import Tensor, nn

from critical_periods.core.errors import UserError
from critical_periods.metrics import FisherTrace
from critical_periods.metrics.functional import fisher_trace, squared_score_norms
from critical_periods.models import MLP, AllCNN, ResNet18


class TwoEyes(nn.Module):
    """Two convolutional pathways with batch norm, added, and a trunk: [B, 3, 8, 8] a view."""

    def __init__(self) -> None:
        super().__init__()
        self.eyes = nn.ModuleList(
            nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
            for _ in range(2)
        )
        self.trunk = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(True))
        self.head = nn.Linear(6, 4)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        both = self.eyes[0](left) + self.eyes[1](right)
        return self.head(self.trunk(both).mean((2, 3)))


class Attention(nn.Module):
    """A parameter of the network itself, attention, and one weight under two names: [B, 5, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(5, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        self.first = nn.Linear(8, 8)
        self.again = nn.Linear(8, 8, bias=False)
        self.again.weight = self.first.weight

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.block(tokens + self.place)
        return self.again(self.first(tokens).tanh()).mean(1)


CASES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 5)), [(12,)]),
    "two eyes": (TwoEyes, [(3, 8, 8), (3, 8, 8)]),
    "attention": (Attention, [(5, 8)]),
}
NETWORKS = {
    "all_cnn": (lambda: AllCNN(width=4, num_classes=5), [(3, 16, 16)]),
    "all_cnn of depth 2": (lambda: AllCNN(width=3, num_classes=5, depth=2), [(3, 16, 16)]),
    "resnet18": (lambda: ResNet18(width=4, num_classes=5), [(3, 16, 16)]),
    "MLP": (lambda: MLP([9, 8, 7, 6, 5], in_features=768, num_classes=5), [(3, 16, 16)]),
}


@pytest.fixture(params=CASES)
def case(request) -> tuple[nn.Module, list[Tensor]]:
    return made(request.param)


def made(name: str) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(3)
    build, shapes = (CASES | NETWORKS)[name]
    network, views = build().double(), [torch.randn(6, *shape).double() for shape in shapes]
    for module in network.train().modules():  # scales and statistics that are not 0 and 1
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    network(*[view * 2 + 1 for view in views])
    return network, views


def plain_loop(network: nn.Module, views: list[Tensor]) -> dict[str, Tensor]:
    """Sample by sample, class by class, with nothing but autograd on log p(y|x)."""
    network = copy.deepcopy(network).eval()
    parameters = dict(network.named_parameters())
    norms: dict[str, Tensor] = {}
    for i in range(len(views[0])):
        log_p = network(*[view[i : i + 1] for view in views])[0].log_softmax(0)
        for y in range(len(log_p)):
            gradients = torch.autograd.grad(log_p[y], list(parameters.values()), retain_graph=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                layer = ".".join(name.split(".")[:-1]) or "root"
                norm = norms.setdefault(layer, torch.zeros(len(views[0])).double())
                norm[i] += (log_p[y].exp() * gradient.square().sum()).detach()
    return norms


@pytest.mark.parametrize("name", [*CASES, *NETWORKS])
def test_equals_plain_loop(name):
    network, views = made(name)
    expected = plain_loop(network, views)
    actual = squared_score_norms(network, views)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=0)
    total, layers = fisher_trace(network, views)
    expected_total = sum(norms.mean() for norms in expected.values())
    torch.testing.assert_close(total, expected_total, rtol=1e-9, atol=0)
    torch.testing.assert_close(torch.stack(list(layers.values())).sum(), total, rtol=1e-12, atol=0)


@pytest.fixture
def _float64() -> Iterator[None]:
    """In nngeometry buffers and the eps of a division have the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("_float64")
def test_traces_of_networks_of_one_view_equal_nngeometrys(name):
    network, (images,) = made(name)
    metric = FisherTrace(network)  # it puts the network into evaluation mode itself
    for batch in images.split(4):
        metric.update(batch)
    # The diagonal of the exact Fisher matrix, which it gets from K - 1 outputs and no score.
    collection = LayerCollection.from_model(network.eval())
    # It asks for gradients of the images that it is given.
    examples = (images.clone(), torch.zeros(len(images)))
    fisher = FIM(network, examples, PMatDiag, layer_collection=collection)
    parts = fisher.get_diag().split([layer.numel() for layer in collection.layers.values()])
    expected = {name: part.sum() for name, part in zip(collection.layers, parts, strict=True)}
    implicit = FIM(network, examples, PMatImplicit)
    for total, layers in (fisher_trace(network, [images]), metric.compute()):
        torch.testing.assert_close(layers, expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(total, fisher.trace(), rtol=1e-6, atol=0)
        torch.testing.assert_close(total, implicit.trace(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("bias", [True, False])
def test_closed_form_of_a_linear_softmax(bias):
    torch.manual_seed(0)
    network, x = nn.Linear(7, 4, bias=bias).double(), torch.randn(9, 7).double()
    p = network(x).softmax(1).detach()
    scores = (torch.eye(4) - p.unsqueeze(1)).square().sum(2)  # |e_y - p|², [B, K]
    expected = ((x.square().sum(1) + bias) * (p * scores).sum(1)).mean()
    torch.testing.assert_close(fisher_trace(network, [x])[0], expected, rtol=1e-12, atol=0)


def test_sampled_within_four_standard_errors_of_exact(case):
    network, views = case
    draws = 200
    exact = sum(squared_score_norms(network, views).values())
    generator = torch.Generator().manual_seed(5)
    rounds = [squared_score_norms(network, views, 1, generator) for _ in range(draws)]
    samples = torch.stack([sum(norms.values()) for norms in rounds])  # [draws, B]
    error = (samples.var(0) / draws).sum().sqrt() / samples.shape[1]
    generator.manual_seed(6)
    sampled, _ = fisher_trace(network, views, draws, generator)
    assert error < 0.1 * exact.mean()
    assert (samples.mean() - exact.mean()).abs() < 4 * error
    assert (sampled - exact.mean()).abs() < 4 * error


@pytest.mark.parametrize(("chunk_size", "num_draws"), [(1, 3), (4, None), (100, None)])
def test_chunks_do_not_matter(case, chunk_size, num_draws):
    network, views = case
    whole, part = (
        squared_score_norms(network, views, num_draws, torch.Generator().manual_seed(1), size)
        for size in (len(views[0]), chunk_size)
    )
    torch.testing.assert_close(part, whole, rtol=1e-12, atol=0)


def test_layers_that_are_frozen_are_left_out(case):
    network, views = case
    everything = squared_score_norms(network, views)
    last = [name for name in everything if name != "root"][-1]
    for parameter in network.get_submodule(last).parameters(recurse=False):
        parameter.requires_grad_(False)
    rest = squared_score_norms(network, views)
    del everything[last]
    torch.testing.assert_close(rest, everything, rtol=1e-12, atol=0)


@pytest.mark.parametrize("fails", [False, True])
def test_training_is_untouched(case, fails):
    network, views = case
    network(*views).sum().backward()
    next(network.children()).eval()

    def everything() -> Any:
        parameters = [(p.grad, p.requires_grad) for p in network.parameters()]
        modes = [module.training for module in network.modules()]
        return copy.deepcopy([network.state_dict(), parameters, modes, torch.get_rng_state()])

    before, generator = everything(), torch.Generator().manual_seed(2)
    if fails:
        with pytest.raises(RuntimeError):
            squared_score_norms(network, [view[:, 1:] for view in views])
    else:
        norms = squared_score_norms(network, views, 2, generator)
        assert not any(norm.requires_grad for norm in norms.values())
    torch.testing.assert_close(everything(), before, rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_works_where_lightning_validates(case, mode):
    network, views = case[0].float(), [view.float() for view in case[1]]
    expected, _ = fisher_trace(network, views)
    with mode(), torch.autocast("cpu", torch.bfloat16):
        actual, _ = fisher_trace(network, [view + 0 for view in views])
    assert torch.equal(actual, expected)


def test_metric_over_batches_and_processes_equals_the_whole(case):
    network, views = case
    first, second = FisherTrace(network), FisherTrace(network)
    for metric, part in ((first, slice(1)), (first, slice(1, 4)), (second, slice(4, None))):
        metric.update(*[view[part] for view in views])
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), fisher_trace(network, views), rtol=1e-12, atol=0)


def test_metric_draws_from_its_own_seed_and_each_forward_anew(case):
    network, views = case
    metric, other = (FisherTrace(network, num_draws=2, seed=seed) for seed in (1, 2))
    drawn = []
    for _ in range(2):  # the second time after a reset
        torch.rand(3)  # the global state moves on
        values = [metric(*views)[0] for _ in range(2)]
        torch.testing.assert_close(metric.compute()[0], sum(values) / 2)
        metric.reset()
        drawn.append(values)
    assert drawn[0] == drawn[1] and drawn[0][0] != drawn[0][1]
    assert drawn[0][0] != other(*views)[0]


def test_metric_does_not_own_the_network_and_can_be_pickled(case):
    network, views = case
    metric = FisherTrace(network, num_draws=2)
    metric.update(*views)
    pickled, cloned = pickle.loads(pickle.dumps(metric)), metric.clone()
    assert not list(metric.parameters()) and not metric.state_dict()
    assert cloned.network is metric.network is network and pickled.network is not network
    for each in (metric, pickled, cloned):
        each.update(*views)
        assert torch.equal(metric.compute()[0], each.compute()[0])


def test_bad_input_is_one_sentence():
    x = torch.randn(2, 3)
    with pytest.raises(UserError, match=r"logits \[B, K\]"):
        fisher_trace(nn.Linear(3, 1), [x])
    with pytest.raises(UserError, match=r"shape \[2, 1, 4\] for 2 samples"):
        fisher_trace(nn.Linear(5, 4), [torch.randn(2, 1, 5)])
    heads = nn.Linear(3, 4)
    heads.register_forward_hook(lambda module, args, output: {"both": output})
    with pytest.raises(UserError, match="a <class 'dict'> for 2 samples"):
        fisher_trace(heads, [x])
    with pytest.raises(UserError, match="no parameter"):
        fisher_trace(nn.Identity(), [x])
    with pytest.raises(UserError, match="num_draws is 3 without a generator"):
        fisher_trace(nn.Linear(3, 4), [x], num_draws=3)
    with pytest.raises(UserError, match="num_draws=0 must be at least 1"):
        fisher_trace(nn.Linear(3, 4), [x], num_draws=0, generator=torch.Generator())


def test_standard_error_is_that_of_the_mean_over_samples(case):
    network, views = case
    metric = FisherTrace(network)
    for part in (slice(2), slice(2, None)):
        metric.update(*[view[part] for view in views])
    metric.compute()
    norms = sum(squared_score_norms(network, views).values())
    torch.testing.assert_close(metric.standard_error, norms.std() / len(norms) ** 0.5)
