"""Measures of plasticity against closed forms and plain loops."""

import math
from itertools import combinations

import pytest
import torch

from critical_periods.core.errors import UserError
from critical_periods.metrics.functional import (
    dormant,
    effective_rank,
    gradient_agreement,
    stable_rank,
    unit_features,
    weight_distance,
)

DRAWS = torch.randn(7, 5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_ranks_of_known_matrices():
    turn, _ = torch.linalg.qr(DRAWS[:5, :, 0, 0])
    for values in ([3.0, 3.0, 3.0], [4.0, 2.0, 1.0, 1.0], [5.0]):
        matrix = (
            turn[:, : len(values)]
            @ torch.diag(torch.tensor(values).double())
            @ torch.eye(5)[: len(values)].double()
        )
        shares = [value / sum(values) for value in values]
        entropy = -sum(share * math.log(share) for share in shares)
        assert effective_rank(matrix).item() == pytest.approx(math.exp(entropy))
        squares = [value**2 for value in values]
        assert stable_rank(matrix).item() == pytest.approx(sum(squares) / max(squares))
    assert effective_rank(torch.zeros(3, 2)) == stable_rank(torch.zeros(3, 2)) == 0


def test_units_and_dormancy_by_loops():
    maps = unit_features(DRAWS)
    torch.testing.assert_close(unit_features(DRAWS[..., None]), maps)
    assert unit_features(DRAWS[..., 0, 0]).equal(DRAWS[..., 0, 0])
    tokens = unit_features(DRAWS[..., 0])
    for sample in range(7):
        for unit in range(5):
            assert maps[sample, unit].item() == pytest.approx(DRAWS[sample, unit].mean().item())
        for unit in range(4):
            assert tokens[sample, unit].item() == pytest.approx(
                DRAWS[sample, :, unit, 0].mean().item()
            )
    means = [0.0, 0.02, 0.03, 1.0, 2.95]
    score = [mean / (sum(means) / 5) for mean in means]
    assert dormant(torch.tensor(means)).tolist() == [one <= 0.025 for one in score]
    assert dormant(torch.zeros(3)).all()
    with pytest.raises(UserError, match=r"features have shape \[3\]"):
        unit_features(torch.zeros(3))


def test_gradients_and_distance_by_loops():
    gradients = DRAWS.flatten(1)
    cosines = [(a @ b / (a.norm() * b.norm())).item() for a, b in combinations(gradients, 2)]
    least, mean = gradient_agreement(gradients)
    assert least.item() == pytest.approx(min(cosines))
    assert mean.item() == pytest.approx(sum(cosines) / len(cosines))
    assert [one.item() for one in gradient_agreement(torch.tensor([[0.0], [2.0]]))] == [0, 0]
    start = [torch.zeros_like(one) for one in gradients]
    assert weight_distance(list(gradients), start).item() == pytest.approx(gradients.norm().item())
    with pytest.raises(UserError, match="at least two to compare"):
        gradient_agreement(gradients[:1])
