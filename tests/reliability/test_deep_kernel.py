"""The GP against one in NumPy, and what training and choosing do to it."""

import numpy as np
import pytest
import torch

from critical_periods.core.errors import UserError
from critical_periods.reliability import PLAIN, Architecture, Choice, DeepKernelGP


def points(n: int, dimension: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dimension))


def line(x: np.ndarray) -> np.ndarray:
    return 5 + 3 * x.sum(axis=1)


@pytest.mark.parametrize("architecture", [PLAIN, Architecture(2, (4,), powers=2)], ids=str)
def test_the_posterior_and_the_likelihoods_are_those_of_the_textbook(architecture):
    x, new = 4 + 2 * points(30, 3), 4 + 2 * points(7, 3, seed=1)
    y = np.sin(x[:, 0]) + x[:, 1] + 0.1 * points(30, 1, seed=2)[:, 0]
    model = DeepKernelGP([architecture], folds=2).fit(x, y)
    gp = model._gp
    assert gp is not None
    s2, lengths = float(gp.kernel.outputscale), gp.kernel.base_kernel.lengthscale.detach().numpy()
    noise, constant = float(gp.likelihood.noise), float(gp.mean.constant)

    def z(one: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return gp.network(torch.as_tensor((one - x.mean(0)) / x.std(0))).numpy()

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        scaled = (z(a)[:, None] - z(b)[None]) / lengths
        return s2 * np.exp(-(scaled**2).sum(-1) / 2)

    known = k(x, x) + noise * np.eye(30)
    targets = (y - y.mean()) / y.std()
    mean = constant + k(new, x) @ np.linalg.solve(known, targets - constant)
    covariance = k(new, new) - k(new, x) @ np.linalg.solve(known, k(x, new))
    found, sd = model.predict(new)
    np.testing.assert_allclose(found, y.mean() + y.std() * mean, rtol=1e-6)
    np.testing.assert_allclose(model.mean(new), found, rtol=1e-9)
    np.testing.assert_allclose(sd, y.std() * covariance.diagonal() ** 0.5, rtol=1e-4)
    np.testing.assert_allclose(model.covariance(new), y.var() * covariance, rtol=1e-3, atol=1e-7)
    assert model.noise == pytest.approx(y.std() * noise**0.5)
    spread = y.std() * (covariance.diagonal() + noise) ** 0.5
    held = np.sin(new[:, 0]) + new[:, 1]
    expected = -np.log(spread * (2 * np.pi) ** 0.5) - ((held - found) / spread) ** 2 / 2
    assert model.log_likelihood(new, held) == pytest.approx(expected.mean(), rel=1e-4)


def test_joint_training_moves_the_network_to_a_larger_marginal_likelihood():
    x = points(40, 5)
    y = np.tanh(x[:, 0] + x[:, 1]) + 0.05 * points(40, 1, seed=1)[:, 0]
    likelihoods, weights = [], []
    for joint in (False, True):
        choice = Choice(Architecture(1), pretraining_steps=100, training_steps=40, noise=0.01)
        gp = DeepKernelGP(joint=joint).fit(x, y, choice)._gp
        assert gp is not None
        gp.train()
        with torch.no_grad():
            prior = gp.likelihood(gp(*gp.train_inputs))
            likelihoods.append(float(prior.log_prob(gp.train_targets)))
        weights.append(gp.network.direct.weight.detach())
    assert likelihoods[1] > likelihoods[0] + 0.1
    assert not torch.equal(*weights)


def test_the_grid_search_finds_what_the_targets_need_and_the_noise_of_seeds():
    x = points(60, 6)
    curved = (x**2).sum(axis=1)
    grid = [Architecture(1), Architecture(1, powers=2), PLAIN]
    model = DeepKernelGP(grid, folds=3).fit(x, curved)
    assert model.choices[0].architecture == Architecture(1, powers=2)
    assert {one.architecture for one in model.choices} == set(grid)
    scores = [one.log_likelihood for one in model.choices]
    assert scores == sorted(scores, reverse=True)
    # Runs of one setting by several seeds are noise, not a contradiction.
    noisy = np.repeat(line(x), 2) + 2 * points(120, 1, seed=4)[:, 0]
    model = DeepKernelGP([Architecture(1)], folds=3).fit(np.repeat(x, 2, axis=0), noisy)
    assert model.noise == pytest.approx(2, rel=0.25)
    assert abs(model.mean(x) - line(x)).mean() < 1


def test_the_same_seed_gives_the_same_bits_and_leaves_the_global_state_alone():
    x, before = points(30, 4), torch.get_rng_state()
    grid = [Architecture(2, (4,))]
    means = [DeepKernelGP(grid, 2, seed=seed).fit(x, line(x)).mean(x) for seed in (0, 0, 1)]
    assert (means[0] == means[1]).all() and (means[0] != means[2]).any()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        assert (DeepKernelGP(grid, 2).fit(x, line(x)).mean(x) == means[0]).all()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: Architecture(-1), "latent is a whole number from 0 on"),
        (lambda: Architecture(1, powers=4), "powers 1, 2 or 3"),
        (lambda: DeepKernelGP([]), "architectures is empty"),
        (lambda: DeepKernelGP(folds=1), "folds is 1"),
        (lambda: DeepKernelGP().predict([[0.0]]), r"call fit\(x, y\) first"),
        (lambda: DeepKernelGP().fit(points(9, 2), np.ones(9)), "9 points are too few for 5 folds"),
        (lambda: DeepKernelGP().fit(points(20, 2), np.ones(20)), "every y is 1; give points"),
        (lambda: DeepKernelGP().fit(points(20, 2), np.ones(19)), r"shape \[20, 2\], y \[19\]"),
        (lambda: DeepKernelGP().fit(points(20, 2), [np.nan] * 20), "x or y holds nan or inf"),
    ],
)
def test_mistakes_are_told_in_a_sentence(mistake, message):
    with pytest.raises(UserError, match=message):
        mistake()


def test_a_missing_gpytorch_is_a_sentence(monkeypatch):
    module = "critical_periods.reliability.deep_kernel.find_spec"
    monkeypatch.setattr(module, lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'critical-periods\[adaptive\]'"):
        DeepKernelGP()
