"""Information in the weights against closed forms, the Fisher trace, and its own monitor."""

import copy
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from processes import join_processes, start_processes
from small_runs import clean_samples, quiet_trainer
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F
from torch.utils.data import DataLoader, DistributedSampler

from critical_periods.callbacks import WeightInformationMonitor
from critical_periods.core.errors import UserError
from critical_periods.data import DigitsDataModule
from critical_periods.metrics.functional import fisher_trace, weight_information
from critical_periods.models import AllCNN
from critical_periods.tasks import ClassificationTask

# Linear models with Gaussian noise: all has a closed form.


class Blocks(nn.Module):
    """Two linear blocks, added, of [B, a] and [B, b]."""

    def __init__(self, a: int, b: int, outputs: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(a, outputs, bias=False), nn.Linear(b, outputs, bias=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x) + self.b(y)


def half_square(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().sum(1).mean() / 2


def linear_model(a: int, b: int, outputs: int, samples: int) -> tuple[Blocks, list[Tensor], Tensor]:
    torch.manual_seed(a + b)
    network = Blocks(a, b, outputs).double()
    views = [torch.randn(samples, a).double(), 3 * torch.randn(samples, b).double()]
    target = network(*views).detach() + 0.1 * torch.randn(samples, outputs)
    return network, views, target


def best_variance(weight: Tensor, design: Tensor, price: float) -> float:
    """Minimises σ²/2 · outputs · tr(XᵀX)/N + β n/2 · log(1 + mean(w²)/σ²) on a grid of σ²."""
    n, power = weight.numel(), float(weight.detach().square().mean())
    rise = len(weight) * float((design.T @ design).trace()) / len(design) / 2
    grid = power * torch.logspace(-9, 4, 400_001, dtype=torch.float64)
    objective = grid * rise + price * n / 2 * torch.log1p(power / grid)
    return float(grid[objective.argmin()])


@pytest.mark.parametrize(
    ("a", "b", "outputs", "price"),
    [(300, 60, 1, 1e-6), (300, 60, 1, 1.0), (40, 90, 5, 1e-3), (40, 90, 5, 0.1)],
)
def test_linear_gaussian_models_agree_with_their_closed_form(a, b, outputs, price):
    network, views, target = linear_model(a, b, outputs, samples=80)
    batches = [(views, target)]
    found = weight_information(network, batches, price, loss=half_square)
    assert list(found.nats) == ["a", "b"]
    expected_loss = half_square(network(*views), target).detach()
    for (layer, nats), design in zip(found.nats.items(), views, strict=True):
        weight = network.get_submodule(layer).weight.detach()
        variance = best_variance(weight, design, price)
        expected = weight.numel() / 2 * math.log1p(float(weight.square().mean()) / variance)
        assert float(nats) == pytest.approx(expected, rel=1e-2)
        # Nats follow from the variance by a logarithm, so that this says more at small prices.
        assert float(found.variances[layer]) == pytest.approx(variance, rel=2.5e-2)
        expected_loss = expected_loss + variance / 2 * outputs * design.square().sum() / 80
    assert float(found.loss) == pytest.approx(float(expected_loss), rel=2e-2)


@pytest.mark.parametrize(
    ("sizes", "samples", "price", "steps", "rel"),
    [((3, 2, 4), [20], 0.05, 1500, 6e-2), ((60, 60, 3), [4, 40], 0.01, 600, 5e-2)],
)
def test_few_weights_and_batches_of_any_size_agree_too(sizes, samples, price, steps, rel):
    """All samples count alike, though those of a first batch of a few are ten times larger."""
    network, views, _ = linear_model(*sizes, samples=sum(samples))
    if len(samples) > 1:
        views = [torch.cat([view[: samples[0]] * 10, view[samples[0] :]]) for view in views]
    inputs = zip(*(view.split(samples) for view in views), strict=True)
    batches = [(part, network(*part).detach()) for part in inputs]
    found = weight_information(network, batches, price, steps=steps, lr=0.1, loss=half_square)
    for layer, design in zip("ab", views, strict=True):
        variance = best_variance(network.get_submodule(layer).weight, design, price)
        assert float(found.variances[layer]) == pytest.approx(variance, rel=rel)


def test_chosen_layers_alone():
    network, views, target = linear_model(200, 30, 2, samples=80)
    found = weight_information(network, [(views, target)], 0.01, layers=["a"], loss=half_square)
    assert list(found.nats) == list(found.variances) == ["a"]
    variance = best_variance(network.a.weight, views[0], 0.01)
    assert float(found.variances["a"]) == pytest.approx(variance, rel=2.5e-2)
    own = half_square(network(*views), target).detach() + variance * views[0].square().sum() / 80
    assert float(found.loss) == pytest.approx(float(own), rel=2e-2)  # b has no noise


def test_nats_are_the_divergence_from_the_best_prior():
    network, views, target = linear_model(5, 4, 2, samples=10)
    found = weight_information(network, [(views, target)], 0.1, steps=20, loss=half_square)
    for layer, nats in found.nats.items():
        weight, variance = network.get_submodule(layer).weight.detach(), found.variances[layer]

        def divergence(scale: Tensor, w: Tensor = weight, s: Tensor = variance) -> Tensor:
            return kl_divergence(Normal(w, s.sqrt()), Normal(0.0, scale.sqrt())).sum()

        best = variance + weight.square().mean()
        torch.testing.assert_close(divergence(best), nats, rtol=1e-9, atol=0)
        assert min(divergence(best * 0.95), divergence(best * 1.05)) > nats


# Networks.


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 30), nn.Tanh(), nn.Linear(30, 6)).double()


def test_little_noise_is_what_the_fisher_trace_predicts():
    """Targets as the network predicts them: Fisher information is the loss's curvature."""
    network, x = classifier(), torch.randn(60, 12).double()
    target = network(x).softmax(1).detach()
    found = weight_information(network, [([x], target)], 1e-7, steps=500)
    for layer, trace in fisher_trace(network, [x])[1].items():
        weights = torch.cat([p.detach().flatten() for p in network[int(layer)].parameters()])
        # r is small: KL = n/2 · log(Tr F · mean(w²) / (β n)).
        small = len(weights) / 2 * torch.log(trace * weights.square().mean() / 1e-7 / len(weights))
        assert float(found.nats[layer]) == pytest.approx(float(small), rel=1e-2)
        variance = len(weights) * 1e-7 / trace
        assert float(found.variances[layer]) == pytest.approx(float(variance), rel=5e-2)


def test_a_higher_price_leaves_less_information_and_more_loss():
    network, x = classifier(), 3 * torch.randn(60, 12).double()
    batches = [([x], network(x).argmax(1))]
    found = [weight_information(network, batches, p, steps=150) for p in (1e-5, 1e-4, 1e-3)]
    for more, less in pairwise(found):
        assert all(more.nats[layer] > 1.1 * less.nats[layer] for layer in ("0", "2"))
        assert more.loss < less.loss


def test_the_scale_of_a_normalised_layer_means_nothing():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(8, 10), nn.BatchNorm1d(10, eps=1e-12), nn.Linear(10, 4)
    ).double()
    x, target = torch.randn(50, 8).double(), torch.arange(50) % 4
    network(x)
    scaled = copy.deepcopy(network)
    with torch.no_grad():
        for tensor in (scaled[0].weight, scaled[0].bias, scaled[1].running_mean):
            tensor *= 7
        scaled[1].running_var *= 49
    one, other = (weight_information(n, [([x], target)], 1e-3, 40) for n in (network, scaled))
    for layer, nats in one.nats.items():
        torch.testing.assert_close(other.nats[layer], nats, rtol=1e-8, atol=0)
    torch.testing.assert_close(other.variances["0"], 49 * one.variances["0"], rtol=1e-8, atol=0)


class Whole(nn.Module):
    """State of every kind: a shared weight, a frozen one, one of zeros, buffers, modes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6))
        self.first = nn.Linear(6, 6)
        self.again = nn.Linear(6, 6, bias=False)
        self.again.weight = self.first.weight
        self.norm = nn.BatchNorm1d(6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.unused = nn.Linear(6, 6)
        self.zero = nn.Linear(6, 6, bias=False)
        nn.init.zeros_(self.zero.weight)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.drop(self.norm(self.first(x * self.scale))).relu()
        return self.again(self.frozen(x)) + self.zero(x)


def whole() -> tuple[Whole, list[Any]]:
    torch.manual_seed(4)
    network = Whole()
    x, target = torch.randn(20, 6), torch.arange(20) % 6
    network.norm.eval()  # one mode differs from the others
    F.cross_entropy(network(x), target).backward()
    return network, [([x], target)]


def test_nothing_of_the_network_changes():
    network, batches = whole()

    def everything() -> Any:
        parameters = [(p.grad, p.requires_grad) for p in network.parameters()]
        modes = [module.training for module in network.modules()]
        return copy.deepcopy([network.state_dict(), parameters, modes, torch.get_rng_state()])

    before = everything()
    with torch.no_grad():
        weight_information(network, batches, 1e-3, steps=6)
        assert not torch.is_grad_enabled()
    torch.testing.assert_close(everything(), before, rtol=0, atol=0)


def test_layers_of_every_kind():
    network, batches = whole()
    found = weight_information(network, batches, 1e-3)
    assert list(found.nats) == ["root", "first", "norm", "unused", "zero"]
    assert found.nats["zero"] == 0 and found.variances["zero"] == 0
    assert 0 < found.nats["unused"] < 2e-2 * found.nats["first"]
    alone = weight_information(network, batches, 1e-3, layers=["unused"])
    assert 0 < alone.nats["unused"] < 2e-2 * found.nats["first"]
    ((views, target),) = batches
    clean = F.cross_entropy(network.eval()(*views), target)
    torch.testing.assert_close(alone.loss, clean.detach().double())


def test_shared_weights_get_the_same_noise():
    torch.manual_seed(1)
    layer, tied = (nn.Linear(6, 6, bias=False).double() for _ in range(2))
    tied.weight = layer.weight
    batches = [([torch.randn(40, 6).double()], torch.arange(40) % 6)]
    twice, square = nn.Sequential(layer, tied), nn.Sequential(layer, layer)
    found, expected = (weight_information(n, batches, 1e-3, 20) for n in (twice, square))
    torch.testing.assert_close(found.nats, expected.nats)


def test_the_generator_alone_decides():
    network, batches = whole()

    def nats(seed: int | None) -> list[float]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        found = weight_information(network, batches, 1e-3, steps=6, generator=generator)
        return [float(value) for value in found.nats.values()]

    torch.manual_seed(8)
    first = nats(0)
    torch.manual_seed(9)
    assert nats(0) == first == nats(None) != nats(1)


GOOD: dict[str, Any] = {"batches": [([torch.ones(4, 6)], torch.arange(4))], "price": 0.1}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"price": 0.0}, r"price=0\.0 of weight_information must be a number greater than 0\."),
        ({"price": math.nan}, r"price=nan of weight_information must"),
        ({"steps": 0}, r"steps=0 of weight_information must"),
        ({"lr": -0.1}, r"lr=-0\.1 of weight_information must"),
        ({"batches": []}, r"batches is empty; give at least one"),
        ({"layers": ["frist"]}, r"layers names 'frist', which is no .* did you mean 'first'\?"),
        ({"layers": ["frozen"]}, r"layers names 'frozen', which is no layer"),
        ({"layers": "first"}, r"layers='first' must be a list"),
    ],
)
def test_what_cannot_be(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        weight_information(Whole(), **(GOOD | settings))
    with pytest.raises(UserError, match="no parameter that requires a gradient"):
        weight_information(Whole().requires_grad_(False), **GOOD)


# The monitor.


def data() -> DigitsDataModule:
    return DigitsDataModule(batch_size=50, limit_train=100)


def monitor(**settings: Any) -> WeightInformationMonitor:
    return WeightInformationMonitor(**{"samples": 70, "price": 1e-4, "steps": 8, **settings})


def trained(task: pl.LightningModule, data: Any, *callbacks: pl.Callback, **settings: Any) -> Any:
    run = quiet_trainer(*callbacks, limit_val_batches=1, **{"max_epochs": 1, **settings})
    run.fit(task, data)
    return run


def test_logs_what_the_function_says():
    pl.seed_everything(2, verbose=False)
    task = ClassificationTask(AllCNN(width=4, in_channels=1))
    task.network.head = nn.Sequential(nn.Dropout(0.2), task.network.head)
    run = trained(task, data(), monitor(every_n_epochs=1), max_epochs=2)
    measured = clean_samples(data(), "train", 70)
    # Three steps see all, of at most 32 samples each.
    batches = [
        ([measured.views[part, 0]], measured.target[part])
        for part in torch.arange(70).split([24, 23, 23])
    ]
    found = weight_information(task.network, batches, 1e-4, steps=8)
    logged = run.callback_metrics
    expected = {f"/{layer}": float(nats) for layer, nats in found.nats.items()}
    expected[""] = sum(expected.values())
    key = "information/weights"
    weights = {k.removeprefix(key): float(v) for k, v in logged.items() if k.startswith(key)}
    assert weights == pytest.approx(expected, rel=1e-5)
    assert float(logged["information/noisy_loss"]) == pytest.approx(float(found.loss), rel=1e-4)


class ThirdParty(pl.LightningModule):
    """A third party's project."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(8, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(torch.cat([left, right], 1).flatten(1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (left, right), target = batch
        return F.cross_entropy(self(left, right), target)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def third_partys_data() -> tuple[Tensor, DataLoader[Any]]:
    images = torch.randn(24, 2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    pairs = [((a, b), i % 3) for i, (a, b) in enumerate(images)]
    return images, DataLoader(pairs, batch_size=6)  # type: ignore[arg-type]


def third_partys_nats(rows: Tensor, price: float = 1e-4) -> float:
    images, _ = third_partys_data()
    batches = [(images[rows].unbind(1), rows % 3)]
    found = weight_information(ThirdParty(), batches, price, steps=8)
    return float(found.nats["head"])


def test_in_a_project_that_is_not_this_one():
    run = trained(ThirdParty(), third_partys_data()[1], monitor(samples=18, layers=["head"]))
    logged = float(run.callback_metrics["information/weights/head"])
    assert logged == pytest.approx(third_partys_nats(torch.arange(18)), rel=1e-5)


def run_process(rank: int, folder: Path) -> None:
    settings: dict[str, Any] = {"devices": 2, "strategy": "ddp", "default_root_dir": folder}
    pl.seed_everything(7, verbose=False)
    own = trained(still_task(), data(), monitor(), **settings)
    other = trained(ThirdParty(), third_partys_data()[1], monitor(samples=12), **settings)
    logged = [float(run.callback_metrics["information/weights"]) for run in (own, other)]
    torch.save(logged, folder / f"{rank}.pt")


def still_task() -> ClassificationTask:
    """Weights that training leaves as they are, so that only the measuring can differ."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 10))
    return ClassificationTask(network, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))


def test_two_processes_measure_what_one_does(tmp_path):
    context = start_processes(run_process, tmp_path)
    run = trained(still_task(), data(), monitor())
    join_processes(context)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first == second
    assert first[0] == pytest.approx(float(run.callback_metrics["information/weights"]), rel=1e-6)
    # Lightning shuffles the training loader and deals it out; all measure what each has kept.
    dealt = [[*DistributedSampler(range(24), 2, rank, seed=7)][:6] for rank in (0, 1)]
    rows = torch.tensor(dealt).T.flatten()
    assert first[1] == pytest.approx(third_partys_nats(rows), rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"price": -1.0}, r"price=-1\.0 of WeightInformationMonitor must be a number greater"),
        ({"steps": 0}, r"steps=0 of WeightInformationMonitor must be a number greater than 0\."),
        ({"samples": 0}, r"samples=0 of WeightInformationMonitor must be at least 1\."),
    ],
)
def test_settings_without_meaning(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        monitor(**settings)


def test_an_unknown_layer_before_training():
    task = ThirdParty()
    with pytest.raises(UserError, match=r"layers names 'haed'.* did you mean 'head'\?"):
        trained(task, third_partys_data()[1], monitor(layers=["haed"]))
    assert task.global_step == 0
