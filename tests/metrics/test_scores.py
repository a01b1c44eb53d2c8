"""Square roots of the covariance of scores, in float64, up to networks that are all but certain."""

import pytest
import torch
from torch import Tensor

from critical_periods.metrics.functional.scores import ScoreRoot

DRAW = torch.Generator().manual_seed(0)
OUTPUTS = {
    "unsure": torch.randn(20, 10, generator=DRAW),
    "sure of some": torch.randn(20, 10, generator=DRAW) * 30,
    "equal": torch.zeros(2, 10),
    "two classes": torch.randn(9, 2, generator=DRAW) * 20,
    "two equal classes": torch.zeros(1, 2),
    "many classes": torch.randn(2, 1000, generator=DRAW) * 5,
    "1 - p = 1e-12": torch.tensor([[27.6, 0, 0, -9], [0, 27.6, -80, 0]]),
    "p = 0 and 1": torch.tensor([[800.0, 0, -800, -900], [0, 800, 0, 800], [0, -1e4, -1e4, -1]]),
    "each far less sure": torch.tensor([[-40.0, 0, -20, -70, -130], [0, -9, -80, -81, -300]]),
    "places": torch.randn(3, 4, 2, 3, generator=DRAW) * 9,
}


@pytest.fixture(params=OUTPUTS)
def z(request) -> Tensor:
    return OUTPUTS[request.param].double()


def columns(root: ScoreRoot) -> Tensor:
    """S, [B, K, places, columns]."""
    return torch.stack([root.column(number) for number in range(root.columns)], -1)


def test_the_square_of_a_root_is_the_covariance(z):
    """Entry by entry, beside the standard deviations of both classes."""
    S = columns(ScoreRoot.of(z, "categorical"))
    p, number = z.softmax(1).flatten(2) if z.ndim > 2 else z.softmax(1).unsqueeze(2), z.shape[1]
    others = 1 - torch.eye(number, dtype=z.dtype)
    expected = torch.zeros(*S.shape[:3], *S.shape[1:3], dtype=z.dtype)
    for place in range(p.shape[2]):
        one = p[:, :, place]
        # p (1 - p) as p times the sum of the others.
        expected[:, :, place, :, place] = (one * (one @ others)).diag_embed()
        expected[:, :, place, :, place] -= one.unsqueeze(2) * one.unsqueeze(1) * others
    rows = S.flatten(1, 2)
    expected = expected.flatten(3).flatten(1, 2)
    deviations = expected.diagonal(dim1=1, dim2=2).sqrt()
    bound = 1e-12 * deviations.unsqueeze(2) * deviations.unsqueeze(1)
    assert bool(((rows @ rows.mT - expected).abs() <= bound + 1e-300).all())


def test_times_is_the_sum_of_signed_columns(z):
    root = ScoreRoot.of(z, "categorical")
    S, shape = columns(root), (len(z), 3, *root.p.shape[1:])
    signs = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1)).double() * 2 - 1
    of_columns = signs.flatten(2)[:, :, : root.columns]
    expected = torch.einsum("bkpc,bdc->bdkp", S, of_columns)
    bound = 1e-12 * torch.einsum("bkpc,bdc->bdkp", S.abs(), of_columns.abs())
    assert bool(((root.times(signs) - expected).abs() <= bound).all())


@pytest.mark.parametrize("rest", [1e-2, 1e-6])
def test_columns_of_the_likeliest_class_first_are_nearly_orthogonal(rest):
    """As signs' variance is that of the products of different columns, here of J Jᵀ = 1."""
    p = torch.tensor([1 - rest, 0.9 * rest, 0.08 * rest, 0.02 * rest]).double()
    S = columns(ScoreRoot.of(p.log().unsqueeze(0), "categorical"))[0, :, 0]
    products = S.mT @ S
    signs = 2 * (products.square().sum() - products.diagonal().square().sum())
    scores = (torch.eye(4) - p).square().sum(1)  # |e_y - p|²
    labels = (p * scores.square()).sum() - (p * scores).sum().square()
    # 0.09 in any other order of these.
    assert signs < 0.08 * rest * labels
