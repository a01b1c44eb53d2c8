"""Linear paths that compete for the modes of a hierarchy: simulation, theory and the study."""

import math
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from linear_runs import run_study, train
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import quiet_trainer

from critical_periods.callbacks import FreezeWindow, ModeMonitor
from critical_periods.core.errors import UserError
from critical_periods.data import HierarchyDataModule
from critical_periods.linear import Freeze, layer_strength, path_strengths, strength
from critical_periods.linear.hierarchy import hierarchy
from critical_periods.models import MLP, MultiPathLinear
from critical_periods.studies.tables import read_table
from critical_periods.tasks import RegressionTask

TASK = hierarchy(4).T.double()
TARGETS = torch.linalg.svdvals(TASK).numpy()
TIMES = np.linspace(0, 4, 41)
START = [[0.1], [0.1]]


# The theory against what can be solved on paper.


def test_shallow_paths_follow_their_closed_form_through_a_freeze():
    """D = 1: dK/dt = s - Σ K; while path 1 is frozen path 0 alone closes the gap."""
    s, k, end = 3.0, 0.1, 0.5
    found = path_strengths(TIMES, [s], [[k], [k]], 1, [Freeze(1, 0, end)])[:, :, 0]
    later, left = np.maximum(TIMES - end, 0), (s - 2 * k) * np.exp(-end)
    gap = (s - 2 * k) * np.exp(-np.minimum(TIMES, end)) * np.exp(-2 * later)
    gained = np.where(later > 0, (left - gap) / 2, 0)
    np.testing.assert_allclose(found[:, 1], k + gained, atol=1e-8)
    np.testing.assert_allclose(found.sum(axis=1), s - gap, atol=1e-8)


def test_two_layers_grow_logistically_together():
    """D = 2, equal paths: the sum S has dS/dt = 2 S (s - S)."""
    s, k = 2.0, 0.01
    found = path_strengths(TIMES, [s], layer_strength([[k], [k]], 2), 2)[:, :, 0]
    logistic = s / (1 + (s / (2 * k) - 1) * np.exp(-2 * s * TIMES))
    np.testing.assert_allclose(found, np.stack([logistic, logistic], 1) / 2, atol=1e-7)


@pytest.mark.parametrize(
    ("depth", "excess", "conserved"),
    [
        # ∫ da / (a² + c)^((D-1)/2) grows alike in all paths that learn, so differences stay.
        (1, 0.0, lambda a: a),
        (2, 0.0, np.log),
        (3, 0.0, lambda a: -1 / a),
        (4, 0.0, lambda a: -1 / (2 * a**2)),
        (2, 1.0, np.arcsinh),
        (3, 1.0, np.arctan),
        (3, 0.25, lambda a: 2 * np.arctan(2 * a)),
    ],
)
def test_what_one_path_is_ahead_stays_once_both_learn(depth, excess, conserved):
    first = [[0.3, 0.2], [0.25, 0.3]]
    found = path_strengths(TIMES, [2.0, 1.0], first, depth, [Freeze(0, 0.1, 0.3)], excess)
    grid = np.linspace(0, 3, 300_001)
    layers = np.interp(found, strength(grid, depth, excess), grid)
    ahead = conserved(layers[:, 1]) - conserved(layers[:, 0])
    # The freeze lasts from the second moment to the fourth.
    before, after = ahead[:2], ahead[3:]
    np.testing.assert_allclose(before, np.broadcast_to(before[0], before.shape), atol=2e-5)
    np.testing.assert_allclose(after, np.broadcast_to(after[0], after.shape), atol=2e-5)
    assert (after[0] > before[0] + 0.05).all()
    np.testing.assert_allclose(found[1:4, 0], np.broadcast_to(found[1, 0], (3, 2)), rtol=1e-12)


def test_times_may_repeat_and_pieces_make_the_whole():
    start = layer_strength(START, 3)
    whole = path_strengths([0.5, 0.5, 2.0], [2.0], start, 3, [Freeze(1, 0.25, 0.75)])
    np.testing.assert_array_equal(whole[0], whole[1])
    then = layer_strength(whole[0], 3)
    rest = path_strengths([1.5], [2.0], then, 3, [Freeze(1, -0.25, 0.25)])
    np.testing.assert_allclose(rest[-1], whole[-1], rtol=1e-7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: path_strengths([], [2.0], START, 3), r"times have shape \[0\]"),
        (lambda: path_strengths([-1, 2], [2.0], START, 3), "times run from -1"),
        (lambda: path_strengths([0, math.nan], [2.0], START, 3), "give finite ones"),
        (lambda: path_strengths([1.0, 0.5], [2.0], START, 3), "not in order; sort them"),
        (lambda: path_strengths([1], [math.nan], START, 3), "targets holds nan or inf"),
        (lambda: path_strengths([1], [2.0], [[math.nan], [0.1]], 3), "first holds nan or inf"),
        (lambda: path_strengths([1], [2.0], [0.1, 0.1], 3), r"first has shape \[2\]"),
        (lambda: path_strengths([1], [2.0, 1.0], START, 3), "a target for each mode"),
        (lambda: path_strengths([1], 2.0, START, 3), r"targets have shape \[\]"),
        (lambda: path_strengths([1], [2.0], START, 0), "depth is 0"),
        (lambda: path_strengths([1], [2.0], START, 2.5), "depth is 2.5"),
        (lambda: path_strengths([1], [2.0], START, 3, excess=-1), "excess is -1"),
        (lambda: path_strengths([5], [2.0], START, 3, [Freeze(1, 3, 1)]), "at least 3"),
        (lambda: path_strengths([5], [2.0], START, 3, [Freeze(1, math.nan, 1)]), "holds nan"),
        (lambda: path_strengths([5], [2.0], START, 3, [Freeze(1, 0, math.nan)]), "holds nan"),
        (lambda: path_strengths([5], [2.0], START, 3, [Freeze(2, 0, 1)]), "there are 2 paths"),
        (lambda: path_strengths([5], [2.0], START, 3, [Freeze(0.5, 0, 1)]), "path 0.5"),
        # Finite numbers whose slopes are not, and a mode that is learned in no time at all.
        (lambda: path_strengths([1], [2.0], [[1e200]], 3), "too fast to be followed"),
        (lambda: path_strengths([1], [1e300], [[1.0]], 3), "too fast to be followed"),
        (lambda: strength([math.nan], 2), "first holds nan"),
        (lambda: strength([1.0], 0), "depth is 0"),
        (lambda: strength([1.0], 2, -1), "excess is -1"),
        (lambda: layer_strength([8.0], 0), "depth is 0"),
        (lambda: layer_strength([math.inf], 3), "path holds nan or inf"),
        # The network and its task.
        (lambda: MultiPathLinear(scale=0), "scale=0"),
        (lambda: MultiPathLinear(inputs=7).align(TASK, 0.1), "set them to that"),
        (lambda: MultiPathLinear(width=7).align(TASK, 0.1), "choose at least 8"),
        (lambda: MultiPathLinear().align(TASK, -1), "strength=-1"),
        (lambda: HierarchyDataModule(levels=1), "levels=1 of H.* between 2 and 12"),
        (lambda: HierarchyDataModule(levels=13), "levels=13 of H.* between 2 and 12"),
        (lambda: hierarchy(0), "levels=0 of hierarchy"),
        (lambda: hierarchy(13), "levels=13 of hierarchy"),
    ],
)  # fmt: skip
def test_messages(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_a_freeze_may_have_no_end_or_no_length():
    def paths(*freezes: Freeze) -> np.ndarray:
        return path_strengths([0.0, 0.5, 2.0], [2.0], layer_strength(START, 3), 3, freezes)

    free = paths()
    for_good = paths(Freeze(1, 0.5, math.inf))
    np.testing.assert_allclose(for_good[1:, 1], free[[1, 1], 1], rtol=1e-7)
    np.testing.assert_allclose(paths(Freeze(1, 1.0, 1.0)), free, rtol=1e-7)
    np.testing.assert_array_equal(paths(Freeze(1, 3.0, math.inf)), free)


# The network.


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_an_aligned_start_is_balanced_and_has_the_strengths_asked_for(depth):
    network = MultiPathLinear(depth, width=20).double()
    network.align(TASK, 0.01)
    u, _, v = torch.linalg.svd(TASK, full_matrices=False)
    for path in network.paths:
        weights = [layer.weight for layer in path]
        whole = torch.linalg.multi_dot([*weights[::-1], torch.eye(8).double()])
        torch.testing.assert_close(u.T @ whole @ v.T, 0.01 * torch.eye(8).double())
        for below, above in pairwise(weights):
            torch.testing.assert_close(above.T @ above, below @ below.T)
    torch.testing.assert_close(network.mode_strengths(TASK), torch.full((2, 8), 0.01).double())
    if depth > 1:
        assert not torch.equal(*(path[0].weight for path in network.paths))


def test_a_random_start_has_the_spread_asked_for():
    torch.manual_seed(0)
    network = MultiPathLinear(3, width=100, num_paths=1, inputs=100, outputs=100, scale=0.001)
    for weight in network.parameters():
        assert weight.std().item() == pytest.approx(0.001 ** (1 / 3) / 10, rel=0.05)


def test_a_hierarchy_may_have_twelve_levels():
    assert hierarchy(12).shape == (2048, 4095)


# Simulation against theory.


def simulated(
    depth: int, rate: float, steps: int, start: float, freeze: tuple[int, int],
    width: int = 10, every: int = 1,
) -> np.ndarray:  # fmt: skip
    """Gradient descent written out, path 1 frozen in some steps: strengths [steps + 1, 2, 8].

    Or of every so many steps alone.
    """
    torch.manual_seed(0)
    network = MultiPathLinear(depth, width).double()
    network.align(TASK, start)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    inputs, found = torch.eye(8).double(), [network.mode_strengths(TASK)]
    for step in range(steps):
        network.paths[1].requires_grad_(not freeze[0] <= step < freeze[1])
        optimizer.zero_grad()
        ((network(inputs) - TASK.T).square().sum() / 2).backward()
        optimizer.step()
        if (step + 1) % every == 0:
            found.append(network.mode_strengths(TASK))
    return torch.stack(found).detach().numpy()


def theory(depth: int, rate: float, steps: int, start: float, freeze: tuple[int, int]) -> Any:
    first = layer_strength(np.full((2, 8), start), depth)
    frozen = Freeze(1, rate * freeze[0], rate * freeze[1])
    return path_strengths(rate * np.arange(steps + 1), TARGETS, first, depth, [frozen])


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_small_steps_follow_the_theory_to_a_thousandth(depth):
    setting = (depth, 2.5e-4, 2400, 0.3, (600, 1200))
    measured, expected = simulated(*setting, every=10), theory(*setting)[::10]
    np.testing.assert_allclose(measured, expected, atol=1e-3)
    # The freeze mattered, and most of the way was gone.
    assert measured[-1, 0, 0] - measured[-1, 1, 0] > 0.2
    assert measured[-1, :, 0].sum() > 0.6 * TARGETS[0]


def test_the_papers_steps_lag_behind_the_theory_by_no_more_than_two():
    """Steps of 0.01, depth 4, an early freeze: Euler's error is a delay while a mode rises."""
    setting = (4, 0.01, 1000, 0.01, (0, 150))
    measured, expected = simulated(*setting), theory(*setting)
    np.testing.assert_allclose(measured[-1], expected[-1], atol=1e-3)
    near = np.stack([expected[shift : 997 + shift] for shift in range(5)])
    assert (measured[2:999] > near.min(axis=0) - 2e-3).all()
    assert (measured[2:999] < near.max(axis=0) + 2e-3).all()
    # Kleinman et al. 2024, Fig. 2: path 1 has lost every mode for good.
    assert (measured[-1, 1] < 0.1 * TARGETS).all()


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_late_freeze_leaves_nothing_and_a_deeper_network_is_hurt_for_longer(depth):
    def share(onset: int) -> float:
        paths = theory(depth, 0.01, 1000, 0.01, (onset, onset + 150))[-1]
        return float((paths[0] / paths.sum(axis=0)).mean())

    # Weak modes of deep paths are still growing at epoch 400.
    midway = {1: 0.5, 2: 0.503, 3: 0.562, 4: 0.673}[depth]
    assert share(750) == pytest.approx(0.5, abs=1e-3)
    assert share(400) == pytest.approx(midway, abs=2e-3)
    # An early one favours the other path even without depth: nothing takes a strength back.
    assert share(0) > (0.88 if depth == 1 else 0.95)


# Trained by Lightning.

trainer_of = partial(quiet_trainer, limit_val_batches=0)


def fit(epochs: int, *more: pl.Callback, **settings: Any) -> dict[int, dict[str, float]]:
    pl.seed_everything(0)
    task = RegressionTask(MultiPathLinear(3, 10), partial(torch.optim.SGD, lr=0.02), aligned=0.1)
    callbacks = ModeMonitor(every_n_epochs=3), *more
    settings |= {"max_epochs": epochs, "limit_val_batches": 0}
    return train(task, HierarchyDataModule(), *callbacks, **settings)


def test_the_monitor_logs_simulation_and_theory_of_a_frozen_path():
    epochs = fit(11, FreezeWindow(["paths.1"], onset=2, removal=7))
    expected = theory(3, 0.02, 11, 0.1, (2, 7))
    measured = simulated(3, 0.02, 11, 0.1, (2, 7))
    assert "modes/path_0/0" not in epochs[1]
    for done in (3, 6, 9, 11):
        logged = epochs[done - 1]
        for path, mode in np.ndindex(2, 8):
            ode, value = (logged[f"modes/{at}path_{path}/{mode}"] for at in ("ode/", ""))
            assert ode == pytest.approx(expected[done, path, mode], abs=1e-6)
            assert value == pytest.approx(measured[done, path, mode], abs=1e-5)
        share = (measured[done, 0] / measured[done].sum(axis=0)).mean()
        assert logged["modes/share"] == pytest.approx(share, abs=1e-4)
    assert epochs[4]["deficit/active"] == 1 and epochs[7]["deficit/active"] == 0
    # Half the summed squares, before the first step.
    left = ((TARGETS - 0.2) ** 2).sum() / 2
    assert epochs[0]["train/loss"] == pytest.approx(left, rel=1e-5)


def test_the_theory_waits_for_a_freeze_that_is_yet_to_come_and_never_ends():
    free, frozen = (fit(7, FreezeWindow(["paths.1"], onset=5, removal=end)) for end in (5, None))
    assert "modes/ode/path_1/0" in free[2]
    for key in (key for key in free[2] if "ode" in key):
        assert frozen[2][key] == free[2][key]
    assert frozen[6]["modes/ode/path_1/0"] < free[6]["modes/ode/path_1/0"]


def test_a_run_that_goes_on_measures_and_computes_the_same(tmp_path: Path):
    window = partial(FreezeWindow, ["paths.1"], onset=1)
    whole = fit(9, window(removal=6))
    keeper = ModelCheckpoint(tmp_path, filename="half")
    fit(4, window(removal=4), keeper)
    rest = fit(9, window(removal=6), checkpoint=keeper.best_model_path)
    assert rest[8].keys() == whole[8].keys()
    for key, value in whole[8].items():
        # The theory stopped for breath at epoch 4.
        assert rest[8][key] == (pytest.approx(value, rel=1e-6) if "ode" in key else value)


def test_a_trained_network_is_tested_and_predicts():
    trainer = trainer_of(max_epochs=3)
    task = RegressionTask(MultiPathLinear(2, width=10), aligned=0.1)
    data = HierarchyDataModule()
    trainer.fit(task, datamodule=data)
    (answers,) = trainer.predict(task, datamodule=data)
    torch.testing.assert_close(answers, task.network(torch.eye(8)).detach())
    (tested,) = trainer.test(task, datamodule=data, verbose=False)
    left = (answers - data.batch.target).square().sum() / 2
    assert tested == {"test/loss": pytest.approx(left.item(), rel=1e-5)}


# Steps so long that the very first is one too many, or that it takes a few to leave all numbers.
@pytest.mark.parametrize(("rate", "validates", "epoch"), [(1e30, 1, 0), (1e30, 0, 1), (1.0, 0, 6)])
def test_a_training_that_diverges_ends_in_a_sentence(rate, validates, epoch):
    task = RegressionTask(MultiPathLinear(2, 10), partial(torch.optim.SGD, lr=rate), aligned=0.1)
    trainer = trainer_of(limit_val_batches=validates, max_epochs=9)
    expected = f"the loss of RegressionTask is (nan|inf) at the end of epoch {epoch}, .*lower the"
    with pytest.raises(UserError, match=expected):
        trainer.fit(task, datamodule=HierarchyDataModule())


@pytest.mark.parametrize("part", ["aligned", "monitor"])
def test_a_network_without_paths_is_refused_before_training(part):
    network = MLP(hidden=[4], in_features=8, num_classes=15)
    task = RegressionTask(network, aligned=0.1 if part == "aligned" else None)
    trainer = trainer_of(*[ModeMonitor()] * (part == "monitor"), max_epochs=1)
    with pytest.raises(UserError, match="this run has MLP and HierarchyDataModule"):
        trainer.fit(task, datamodule=HierarchyDataModule())


def test_the_study_gives_its_tables_and_figures(tmp_path: Path):
    cuts = [
        "windows={onset: [0, 1], length: 1, epochs: 3}", "set.trainer.accelerator=cpu",
        "vary={model.init_args.network.init_args.depth: [1, 4]}",
        "trainer.callbacks=[{class_path: ModeMonitor, init_args: {every_n_epochs: 1}}]",
    ]  # fmt: skip
    _, folder, written = run_study("kleinman2024_multi_path", cuts, tmp_path / "out")
    assert sorted(written) == [
        "curve.csv", "curve.png", "modes.csv", "modes_depth_1.png", "modes_depth_4.png",
        "results.csv",
    ]  # fmt: skip
    for figure in ("curve", "modes_depth_4"):
        assert (folder.path / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder.path / f"{figure}.pdf").read_bytes().startswith(b"%PDF")
    settings = ["model.init_args.network.init_args.depth", "onset", "removal"]
    shares = read_table(folder.path / "results.csv").set_index(settings)["path_share"]
    for depth in (1, 4):
        expected = simulated(depth, 0.01, 3, 0.01, (0, 1), width=100)[-1]
        share = (expected[0] / expected.sum(axis=0)).mean()
        assert shares[depth, 0, 1] == pytest.approx(share, abs=1e-5) and share > 0.501
        assert shares[depth, 0, 0] == pytest.approx(0.5, abs=1e-5)
    rows = read_table(folder.path / "modes.csv")
    assert len(rows) == 2 * 3 * 3 * 2 * 8
    frozen = rows.query("onset == 0 and epoch == 0 and path == 1 and removal == 1")["strength"]
    np.testing.assert_allclose(frozen, 0.01, rtol=1e-5)
