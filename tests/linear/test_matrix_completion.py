"""Matrix completion: the descent, the data, the deficit and the studies."""

import re
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from linear_runs import run_study, train
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import quiet_trainer
from torch import Tensor

from critical_periods.callbacks import DeficitWindow
from critical_periods.core.errors import UserError
from critical_periods.data import MatrixDataModule
from critical_periods.deficits import OtherMatrix
from critical_periods.linear.matrix_completion import gradients
from critical_periods.linear.other_matrix import low_rank_matrix
from critical_periods.models import MultiPathLinear
from critical_periods.studies.tables import read_table
from critical_periods.tasks import MatrixCompletionTask

SIZE, SEEN = 6, 15


# The descent.


def product(layers: list[Tensor]) -> Tensor:
    return reduce(lambda below, layer: layer @ below, layers)


def by_autograd(
    layers: list[Tensor], matrix: Tensor, places: Tensor, rate: float, steps: int
) -> Tensor:
    """Half the mean squares at the places, by autograd and torch's own SGD; the last loss."""
    parameters = [layer.requires_grad_() for layer in layers]
    optimizer = torch.optim.SGD(parameters, lr=rate)
    for _ in range(steps):
        loss = (product(parameters) - matrix).flatten()[places].square().mean() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.detach()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_gradients_are_those_of_autograd(depth):
    layers = list(torch.randn(depth, SIZE, SIZE, dtype=torch.float64).requires_grad_())
    matrix, weight = torch.randn(2, SIZE, SIZE, dtype=torch.float64)
    expected = (weight * (product(layers) - matrix).square()).sum() / 2
    loss, slopes = gradients(layers, matrix, weight)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for slope, other in zip(slopes, torch.autograd.grad(expected, layers), strict=True):
        torch.testing.assert_close(slope, other, rtol=1e-12, atol=1e-14)


# The data and the deficit.


def test_matrices_have_their_rank_their_norm_and_a_seed():
    for rank in (1, 10):
        matrix = low_rank_matrix(100, rank, seed=3)
        values = torch.linalg.svdvals(matrix)
        assert values[rank - 1] > 1 and (values[rank:] < 1e-3).all()
        assert matrix.norm().item() == pytest.approx(100, rel=1e-5)
    assert torch.equal(low_rank_matrix(9, 2, 1), low_rank_matrix(9, 2, 1))
    assert not torch.equal(low_rank_matrix(9, 2, 1), low_rank_matrix(9, 2, 2))
    # Entries of mean 0 and mean square 1, of which no side is large.
    assert abs(matrix.mean().item()) < 0.1


def test_the_places_are_distinct_spread_and_of_the_seed(monkeypatch):
    batches = []
    for seed in ("0", "0", "1"):
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
        batches.append(MatrixDataModule(observed=2000).batch)
    places = batches[0].target[0]
    assert len(places.unique()) == 2000 and places.min() >= 0 and places.max() < 10_000
    rows = torch.bincount(places // 100, minlength=100)
    assert rows.min() > 4 and rows.max() < 40
    for part in ("views", "target"):
        one, same, other = (getattr(batch, part) for batch in batches)
        assert torch.equal(one, same) and not torch.equal(one, other)


def test_the_deficit_shows_another_matrix_of_the_same_kind(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    batch = MatrixDataModule(rank=5, size=40, observed=9).batch
    other = OtherMatrix(rank=5)(batch)
    assert torch.equal(other.target, batch.target)
    matrix, shown = batch.views[0, 0, 0], other.views[0, 0, 0]
    assert shown.shape == matrix.shape and torch.linalg.matrix_rank(shown) == 5
    assert shown.norm().item() == pytest.approx(40, rel=1e-5)
    # Of the same rank and seed it is still another one, unrelated.
    assert abs((shown * matrix).mean().item()) < 0.3
    assert torch.equal(OtherMatrix(rank=5, seed=4)(batch).views, other.views)
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    assert not torch.equal(OtherMatrix(rank=5)(batch).views, other.views)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="observed=101"):
        MatrixDataModule(observed=101, size=10)
    with pytest.raises(UserError, match="rank=11"):
        MatrixDataModule(rank=11, observed=5, size=10)
    with pytest.raises(UserError, match="rank=0"):
        OtherMatrix(rank=0)
    with pytest.raises(UserError, match="rank=7 must lie between 1 and the 6 rows"):
        fit(1, DeficitWindow(OtherMatrix(rank=7), removal=1))
    with pytest.raises(UserError, match="num_paths=2"):
        MatrixCompletionTask(MultiPathLinear())
    with pytest.raises(UserError, match="iterations=0"):
        MatrixCompletionTask(MultiPathLinear(num_paths=1), iterations=0)
    with pytest.raises(UserError, match="matrix of 15x8, but that of the data is 6x6"):
        fit(1, task=MatrixCompletionTask(MultiPathLinear(num_paths=1)))


# Trained by Lightning.


def square(depth: int) -> MultiPathLinear:
    return MultiPathLinear(depth, SIZE, num_paths=1, inputs=SIZE, outputs=SIZE, scale=0.1)


def fit(
    epochs: int, *more: pl.Callback, task: Any = None, data: Any = None, **settings: Any
) -> tuple[MatrixCompletionTask, MatrixDataModule, dict[int, dict[str, float]]]:
    pl.seed_everything(0)
    data = data or MatrixDataModule(rank=2, observed=SEEN, size=SIZE)
    task = task or MatrixCompletionTask(square(2), iterations=5)
    return task, data, train(task, data, *more, max_epochs=epochs, **settings)


def test_a_run_with_a_deficit_is_descent_on_one_matrix_and_then_on_the_other():
    task, data, logged = fit(4, DeficitWindow(OtherMatrix(rank=3, seed=0), removal=2))
    pl.seed_everything(0)
    layers = [weight.detach() for weight in square(2).parameters()]
    other = OtherMatrix(rank=3, seed=0)(data.batch).views[0, 0, 0]
    matrix, places = data.batch.views[0, 0, 0], data.batch.target[0]
    for shown in (other, matrix):
        loss = by_autograd(layers, shown, places, 0.2, 10)
    whole = product(layers).detach()
    torch.testing.assert_close(task.matrix(), whole)
    assert logged[3]["train/loss"] == pytest.approx(loss.item(), rel=1e-4)
    error = (whole - matrix).square().mean() / matrix.square().mean()
    assert logged[3]["val/error"] == pytest.approx(error.item(), rel=1e-5)
    assert [logged[epoch]["deficit/active"] for epoch in range(4)] == [1, 1, 0, 0]


def test_a_trained_network_is_tested_and_predicts_the_matrix():
    task, data, logged = fit(2)
    trainer = quiet_trainer()
    (matrix,) = trainer.predict(task, datamodule=data)
    torch.testing.assert_close(matrix, task.matrix()[None])
    (tested,) = trainer.test(task, datamodule=data, verbose=False)
    assert tested == {"test/error": pytest.approx(logged[1]["val/error"])}


@pytest.mark.parametrize(("rate", "iterations", "epoch"), [(1e25, 1, 0), (1e3, 50, 0), (1e3, 2, 1)])
def test_a_descent_that_diverges_ends_in_a_sentence(rate, iterations, epoch):
    """And so a study does not count it as done."""
    task = MatrixCompletionTask(square(2), rate, iterations)
    remedy = re.escape(f"learning_rate={rate}")
    with pytest.raises(UserError, match=f"is (nan|inf) at the end of epoch {epoch}, .*{remedy}"):
        fit(5, task=task)


def test_one_layer_learns_what_it_sees_and_nothing_else():
    """D = 1: observed entries close in by (1 - rate/N) an iteration, the others never move."""
    network = square(1)
    start = network.maps().detach().flatten()
    task, data, _ = fit(3, task=MatrixCompletionTask(network, iterations=5))
    matrix, places = data.batch.views.flatten(), data.batch.target[0]
    expected = start.clone()
    left = (1 - 0.2 / SEEN) ** 15
    expected[places] = matrix[places] + left * (start - matrix)[places]
    torch.testing.assert_close(task.matrix().flatten(), expected)


@pytest.mark.parametrize("at", [1, 3])
def test_a_run_that_goes_on_has_the_same_bits(at, tmp_path: Path):
    window = partial(DeficitWindow, OtherMatrix(rank=3), 0)
    whole, _, logged = fit(4, window(2))
    keeper = ModelCheckpoint(tmp_path, filename="half")
    fit(at, window(min(at, 2)), keeper)
    rest, _, again = fit(4, window(2), checkpoint=keeper.best_model_path)
    for one, other in zip(whole.parameters(), rest.parameters(), strict=True):
        assert torch.equal(one, other)
    assert again[3] == logged[3]


def test_depth_completes_a_matrix_of_rank_one_and_a_shallow_net_does_not():
    """Arora et al. 2019: the implicit regularisation that the deficit will spoil."""
    errors = []
    for depth in (1, 3):
        pl.seed_everything(0)
        network = MultiPathLinear(depth, 12, num_paths=1, inputs=12, outputs=12)
        task = MatrixCompletionTask(network, learning_rate=0.5, iterations=4000)
        _, _, logged = fit(1, task=task, data=MatrixDataModule(rank=1, observed=80, size=12))
        errors.append(logged[0]["val/error"])
    assert errors[0] > 0.2 and errors[1] < 0.01


NET = "model.init_args.network.init_args"


@pytest.mark.parametrize(
    ("name", "vary", "column"),
    [
        ("", f"{{{NET}.depth: [1, 3]}}", f"{NET}.depth"),
        ("_rank", "{deficit.init_args.rank: [2, 7]}", "deficit.init_args.rank"),
        ("_observed", "{data.init_args.observed: [20, 40]}", "data.init_args.observed"),
    ],
)
def test_every_study_gives_its_tables_and_figures(name, vary, column, tmp_path: Path):
    cuts = [
        "windows={removal: [0, 1], epochs_after: 1}", "seeds=[0]", f"vary={vary}",
        "model.init_args.iterations=5", f"{NET}.inputs=10", f"{NET}.outputs=10", f"{NET}.width=10",
        "data.init_args.size=10", "data.init_args.observed=30",
    ]  # fmt: skip
    name = f"kleinman2024_matrix_completion{name}"
    plan, folder, written = run_study(name, cuts, tmp_path / "out")
    assert written == ["results.csv", "curve.csv", "curve.png"]
    results = read_table(folder.path / "results.csv")
    assert len(results) == len(plan.runs) == 6
    assert results["error"].nunique() > 3
    points = read_table(folder.path / "curve.csv")
    assert set(zip(points[column], points["removal"], strict=True)) == {
        (value, removal) for value in set(results[column]) for removal in (0, 1)
    }
    change = points["error"] - points["error_control"]
    np.testing.assert_allclose(points["error_difference"], change, rtol=1e-6, atol=1e-5)
    assert ((points["error"] > 0) & (points["error"] < 3)).all()
    assert (folder.path / "curve.pdf").read_bytes().startswith(b"%PDF")
