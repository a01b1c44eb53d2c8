"""Usable information against scikit-learn, SciPy and the two values that are known."""

import math

import pytest
import torch
from scipy.stats import entropy
from sklearn.metrics import log_loss

from critical_periods.core.errors import UserError
from critical_periods.metrics import UsableInformation
from critical_periods.metrics.functional import usable_information


def sample(n: int = 200, k: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = torch.multinomial(torch.arange(1.0, k + 1), n, replacement=True, generator=generator)
    return torch.randn(n, k, generator=generator) * 3, target


def test_equals_independent_formula():
    logits, target = sample()
    loss = log_loss(target, logits.double().softmax(1), labels=range(5)) / math.log(2)
    expected = entropy(torch.bincount(target), base=2) - loss
    assert usable_information(logits, target).item() == pytest.approx(expected, abs=1e-12)


def test_uniform_logits_know_less_than_the_frequencies_and_perfect_ones_the_entropy():
    target = torch.tensor([0, 0, 0, 1])
    information = usable_information(torch.full((4, 8), 0.3), target)
    assert information.item() == pytest.approx(entropy([3, 1], base=2) - 3, abs=1e-12)
    target = torch.tensor([0, 0, 1, 2])
    information = usable_information(torch.eye(3)[target] * 1e4, target)
    assert information.item() == pytest.approx(1.5, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_metric_over_batches_and_processes_equals_the_whole(dtype):
    logits, target = sample()
    logits = logits.to(dtype)
    first, second = UsableInformation(num_classes=5), UsableInformation(num_classes=5)
    for part in (slice(0, 1), slice(1, 64)):
        first.update(logits[part], target[part])
    second.update(logits[64:], target[64:])
    first.merge_state(second)
    assert first.compute().dtype == torch.float64
    expected = usable_information(logits, target).item()
    assert first.compute().item() == pytest.approx(expected, abs=1e-12)
    first.reset()
    first.update(torch.zeros(5, 5), torch.arange(5))
    assert first.compute().item() == pytest.approx(0, abs=1e-12)


def test_soft_targets_weigh_the_classes():
    logits, target = sample()
    hard = torch.nn.functional.one_hot(target, 5).float()
    information = usable_information(logits, target).item()
    assert usable_information(logits, hard).item() == pytest.approx(information, abs=1e-12)
    soft, metric = 0.7 * hard + 0.3 * hard.flip(0), UsableInformation(num_classes=5)
    for part in (slice(0, 64), slice(64, None)):
        metric.update(logits[part], soft[part])
    losses = -(soft.double() * logits.double().log_softmax(1)).sum(1).mean()
    expected = entropy(soft.mean(0), base=2) - losses.item() / math.log(2)
    assert metric.compute().item() == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        (torch.zeros(3, 2), torch.tensor([0, 1, 2])),
        (torch.zeros(3, 2), torch.tensor([0, -1, 1])),
        (torch.zeros(3, 2), torch.tensor([0, 1])),
        (torch.zeros(3, 2), torch.zeros(3, 2)),
        (torch.zeros(3), torch.tensor([0, 1, 1])),
    ],
)
def test_bad_input_is_one_sentence(logits, target):
    with pytest.raises(UserError, match="give "):
        usable_information(logits, target)
    with pytest.raises(UserError, match="4 classes but num_classes is 5"):
        UsableInformation(num_classes=5).update(torch.zeros(2, 4), torch.tensor([0, 1]))
