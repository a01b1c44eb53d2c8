"""Exact Fisher traces of the networks of one view against nngeometry."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from nngeometry.layercollection import LayerCollection
from nngeometry.metrics import FIM
from nngeometry.object import PMatDiag, PMatImplicit
from torch import Tensor, nn

from critical_periods.metrics import FisherTrace
from critical_periods.metrics.functional import fisher_trace
from critical_periods.models import MLP, AllCNN, ResNet18

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "all_cnn": lambda: AllCNN(width=4, num_classes=5),
    "all_cnn of depth 2": lambda: AllCNN(width=3, num_classes=5, depth=2),
    "resnet18": lambda: ResNet18(width=4, num_classes=5),
    "mlp": lambda: MLP(hidden=[9, 8, 7, 6, 5], in_features=3 * 16 * 16, num_classes=5),
}


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """In nngeometry buffers and the eps of a division have the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    """A network in evaluation mode with scales and statistics of batch norm away from 0 and 1."""
    torch.manual_seed(3)
    network, images = NETWORKS[request.param](), torch.randn(6, 3, 16, 16)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    for _ in range(3):
        network(images * 2 + 1)
    return network.eval(), images


def by_nngeometry(network: nn.Module, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The diagonal of its exact Fisher matrix, which it gets from K - 1 outputs and no score."""
    layers = LayerCollection.from_model(network)
    # It asks for gradients of the images that it is given.
    examples = (images.clone(), torch.zeros(len(images)))
    fisher = FIM(network, examples, PMatDiag, layer_collection=layers)
    parts = fisher.get_diag().split([layer.numel() for layer in layers.layers.values()])
    return fisher.trace(), {
        name: part.sum() for name, part in zip(layers.layers, parts, strict=True)
    }


def test_traces_equal_nngeometrys(case: tuple[nn.Module, Tensor]) -> None:
    network, images = case
    total, layers = fisher_trace(network, [images])
    expected, expected_layers = by_nngeometry(network, images)
    assert layers.keys() == expected_layers.keys()
    torch.testing.assert_close(layers, expected_layers, rtol=1e-6, atol=0)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)
    implicit = FIM(network, (images.clone(), torch.zeros(len(images))), PMatImplicit)
    torch.testing.assert_close(total, implicit.trace(), rtol=1e-6, atol=0)


def test_metric_over_batches_equals_nngeometry(case: tuple[nn.Module, Tensor]) -> None:
    network, images = case
    metric = FisherTrace(network.train())  # it puts the network into evaluation mode itself
    metric.update(images[:4])
    metric.update(images[4:])
    total, layers = metric.compute()
    expected, expected_layers = by_nngeometry(network.eval(), images)
    torch.testing.assert_close(total, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(layers, expected_layers, rtol=1e-6, atol=0)
