"""Norms by the graph of a batch against those by torch.func, sample by sample, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import critical_periods.metrics.functional.fisher as fisher
from critical_periods import models
from critical_periods.core.autograd_graph import UnknownUseError
from critical_periods.metrics.functional import squared_score_norms
from critical_periods.models import (
    MLP,
    AgentMLP,
    AllCNN,
    MultiPathLinear,
    MultiViewTransformer,
    ResNet18,
    SplitAllCNN,
    SplitNetwork,
    SplitResNet18,
    SplitTimm,
    TimmClassifier,
)

Case = tuple[Callable[[], nn.Module], list[tuple[int, ...]]]


class Pooled(nn.Sequential):
    """Class scores, averaged over places."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).flatten(2).mean(2)


class Frames(nn.Module):
    """Frames that are samples to its convolution, and the mean of their scores."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x.flatten(0, 1))).relu_().mean((2, 3))
        return self.head(y).unflatten(0, x.shape[:2]).mean(1)


class Tokens(nn.Module):
    """A transformer whose answer is that of a token of its own, tokens or samples first."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(6, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.scale, self.head = nn.Parameter(torch.randn(8)), nn.Linear(8, 4)
        self.order = (0, 1) if batch_first else (1, 0)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        x = self.layers(x.permute(*self.order, 2)).permute(*self.order, 2)
        return self.head(x[:, 0] * self.scale)


class Mixing(nn.Linear):
    """What a sample answers depends on the others."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - x.mean(0))


def convs(dims: int, kind: str = "Conv", **settings: Any) -> Case:
    layer = getattr(nn, f"{kind}{dims}d")
    shape = (4, *(9, 8, 7)[:dims])
    return lambda: Pooled(layer(4, 6, 3, **settings), nn.Tanh(), layer(6, 4, 2)), [shape]


def normed(norm: Callable[[int], nn.Module]) -> Case:
    first, last = nn.Conv2d(4, 6, 3), nn.Conv2d(6, 3, 1)
    return lambda: Pooled(first, norm(6), nn.ReLU(True), last), [(4, 7, 7)]


ALL = {"groups": 2, "stride": 2, "dilation": 2, "padding": 3, "bias": False}
UP = {"stride": 2, "groups": 2, "padding": 1, "output_padding": 1}
KNOWN: dict[str, Case] = {
    **{f"conv{d}": convs(d) for d in (1, 3)},
    **{f"conv{d}, all settings": convs(d, **ALL) for d in (1, 2, 3)},
    **{f"conv2, {name}": convs(2, **{name: of}) for name, of in ALL.items()},
    **{m: convs(2, padding=1, padding_mode=m) for m in ("reflect", "replicate", "circular")},
    "conv2, same": convs(2, padding="same", dilation=2),
    "conv2, each way": convs(2, padding=(2, 1), stride=(1, 2), dilation=(2, 1)),
    **{f"transposed{d}": convs(d, "ConvTranspose", **UP) for d in (1, 2, 3)},
    "group norm": normed(lambda channels: nn.GroupNorm(2, channels)),
    "frames": (Frames, [(3, 2, 6, 6)]),
    "samples first": (lambda: Tokens(True), [(5, 8)]),
    "tokens first": (lambda: Tokens(False), [(5, 8)]),
    "AgentMLP": (lambda: AgentMLP(12, 4, [5, 6], tanh=True), [(3, 2, 2)]),
    "AllCNN": (lambda: AllCNN(4, depth=1, num_classes=4), [(3, 16, 16)]),
    "MLP": (lambda: MLP([5, 4], 12, 3), [(3, 2, 2)]),
    "MultiPathLinear": (lambda: MultiPathLinear(3, 5, inputs=8, outputs=4, scale=1), [(8,)]),
    "ResNet18": (lambda: ResNet18(2, 3), [(3, 16, 16)]),
    "SplitNetwork": (
        lambda: SplitNetwork([nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 5, padding=1)], nn.Flatten()),
        [(2, 4, 4)] * 2,
    ),
    "SplitResNet18": (lambda: SplitResNet18(2, 3), [(3, 16, 16)] * 2),
    "SplitAllCNN": (lambda: SplitAllCNN(1, 4, 3), [(3, 16, 16)] * 2),
    "SplitTimm": (
        lambda: SplitTimm("test_resnet", "layer2", 3, cifar_stem=True),
        [(3, 16, 16)] * 2,
    ),
    "TimmClassifier": (lambda: TimmClassifier("test_vit", 3, image_size=32), [(3, 32, 32)]),
    "MultiViewTransformer": (
        lambda: MultiViewTransformer(width=16, depth=1, heads=2, patch=4, image_size=8),
        [(3, 8, 8)] * 2,
    ),
}
UNKNOWN: dict[str, tuple[Case, str]] = {
    "instance norm": (normed(lambda c: nn.InstanceNorm2d(c, affine=True)), "goes into Repeat"),
    "statistics of the batch": (
        normed(lambda channels: nn.BatchNorm2d(channels, track_running_stats=False)),
        "Convolution mixes samples",
    ),
    "spectral norm": (
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), [(4,)]),
        "weight.original",
    ),
    "recurrent": ((lambda: Last(4, 3, batch_first=True), [(5, 4)]), "is used twice"),
    "mixed": ((lambda: Mixing(4, 3), [(4,)]), "one by one"),
}


class Last(nn.GRU):
    """The last state of a recurrent network."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0][:, -1]


def made(case: Case) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    network = case[0]().double()
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.track_running_stats:
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor)
    return network, [torch.randn(5, *shape).double() for shape in case[1]]


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What is said of networks that are slower."""
    found: list[str] = []
    fisher._say_slower.cache_clear()
    monkeypatch.setattr(fisher, "rank_zero_info", found.append)
    return found


def refuse(*_: Any) -> None:
    raise UnknownUseError


@pytest.mark.parametrize("draws", [None, 2])
@pytest.mark.parametrize("name", KNOWN)
def test_norms_by_the_graph_equal_those_by_func(name, draws, said, monkeypatch):
    network, views = made(KNOWN[name])
    # Two chunks of different sizes.
    by_graph = squared_score_norms(network, views, draws, torch.Generator().manual_seed(1), 4)
    assert not said
    monkeypatch.setattr(fisher, "NormsByGraph", refuse)
    by_func = squared_score_norms(network, views, draws, torch.Generator().manual_seed(1))
    torch.testing.assert_close(by_graph, by_func, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_the_graph_does_not_say_is_taken_by_func_and_said_once(name, said, monkeypatch):
    case, why = UNKNOWN[name]
    network, views = made(case)
    found = [squared_score_norms(network, views) for _ in range(2)]
    assert len(said) == 1 and why in said[0] and "by torch.func" in said[0]
    monkeypatch.setattr(fisher, "NormsByGraph", refuse)
    torch.testing.assert_close(found[0], squared_score_norms(network, views), rtol=0, atol=0)


def test_there_is_a_case_for_each_network_of_the_package():
    assert {name for name in models.__all__ if name != "Network"} <= KNOWN.keys()


def test_signs_have_less_variance_than_labels_where_a_network_is_sure():
    """Of two classes, none: the covariance of the score has one column."""
    network, views = nn.Linear(3, 2).double(), [torch.randn(9, 3).double()]
    exact = squared_score_norms(network, views)
    drawn = squared_score_norms(network, views, 1, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, exact, rtol=1e-12, atol=0)
