"""Relative source variance against closed forms and plain loops, in shares of its draws too."""

import itertools
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import WORLD, join_processes, start_processes
from torch import Tensor, nn

from critical_periods.core.errors import UserError
from critical_periods.metrics import RelativeSourceVariance
from critical_periods.metrics.functional import (
    dead_units,
    polarization,
    relative_source_variance,
    rsv_histogram,
    source_variance,
    unit_features,
)

WEIGHTS = torch.linspace(0, 1, 9)


def linear(a: Tensor, b: Tensor) -> Tensor:
    """Nine units z = w a + (1 - w) b, from b alone to a alone: [B, 1] a view."""
    return WEIGHTS.to(a.dtype) * a + (1 - WEIGHTS.to(a.dtype)) * b


def nonlinear(a: Tensor, b: Tensor) -> Tensor:
    """Three units [B, 3] that mix two views [B, 2]."""
    return torch.stack([(a * b).sum(1), torch.tanh(a[:, 0] + 2 * b[:, 1]), a[:, 1].relu()], 1)


def draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


FIXED = [draws(4, 2, seed=1), draws(4, 2, seed=2)]
POOLS = [draws(30, 2, seed=3), draws(30, 2, seed=4)]


def rsv_of(function, fixed, *pools: Tensor, batch_size: int = 512) -> Tensor:
    metric = RelativeSourceVariance(function, fixed, batch_size)
    metric.update(*pools)
    return metric.compute()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_linear_unit_closed_form(dtype, atol):
    fixed = [draws(3, 1, seed=1, dtype=dtype), draws(3, 1, seed=2, dtype=dtype)]
    pools = [draws(50, 1, seed=3, dtype=dtype) * 2 + 5, draws(50, 1, seed=4, dtype=dtype)]
    of_a = WEIGHTS.double() ** 2 * np.var(pools[0].double().numpy())
    of_b = (1 - WEIGHTS.double()) ** 2 * np.var(pools[1].double().numpy())
    expected = ((of_a - of_b) / (of_a + of_b)).expand(3, -1)

    rsv = rsv_of(linear, fixed, *pools)
    torch.testing.assert_close(rsv, expected, rtol=0, atol=atol)
    assert (rsv[:, 0] == -1).all() and (rsv[:, -1] == 1).all()

    variances = [source_variance(linear, fixed, pool, view) for view, pool in enumerate(pools)]
    torch.testing.assert_close(variances[0], of_a.expand(3, -1), rtol=atol, atol=atol)
    assert torch.equal(relative_source_variance(torch.stack(variances)), rsv)


def test_nonlinear_units_equal_a_double_loop():
    expected = np.zeros((4, 3))
    for k, i in itertools.product(range(4), range(3)):
        a, b = FIXED[0][k : k + 1], FIXED[1][k : k + 1]
        of_a = np.var([nonlinear(draw[None], b)[0, i].item() for draw in POOLS[0]])
        of_b = np.var([nonlinear(a, draw[None])[0, i].item() for draw in POOLS[1]])
        expected[k, i] = (of_a - of_b) / (of_a + of_b)
    rsv = rsv_of(nonlinear, FIXED, *POOLS)
    np.testing.assert_allclose(rsv.numpy(), expected, rtol=0, atol=1e-12)


def test_units_of_one_view_are_exact_through_float32_convolutions():
    torch.manual_seed(0)
    eyes = [
        nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
        )
        for _ in range(2)
    ]
    fixed = [torch.randn(3, 3, 16, 16) for _ in eyes]
    metric = RelativeSourceVariance(
        lambda a, b: {"left": eyes[0](a), "right": eyes[1](b), "mean": unit_features(eyes[1](b))},
        fixed,
        batch_size=20,
    )
    for size in (1, 7, 16, 2, 33):  # kernels, and so rounding, change with the batch
        metric.update(*[torch.randn(size, 3, 16, 16) for _ in eyes])
    rsv = metric.compute()
    assert rsv["left"].shape == (3, 32, 16, 16) and rsv["mean"].shape == (3, 32)
    for name, sign in (("left", 1), ("right", -1), ("mean", -1)):
        live = rsv[name][~rsv[name].isnan()]
        assert len(live) > 0.9 * rsv[name].numel()
        assert (live == sign).all()


def test_rounding_counts_as_no_variance_and_small_signals_as_some():
    def noisy(a: Tensor, b: Tensor) -> Tensor:
        rounding = 1 + 4 * torch.finfo(torch.float32).eps * torch.sin(1e4 * a)
        return torch.cat([b * rounding, b + 1e-4 * a, (10 + 0 * a) * rounding], 1)

    fixed = [draws(2, 1, seed=1, dtype=torch.float32), draws(2, 1, seed=2, dtype=torch.float32)]
    pools = [draws(64, 1, seed=s, dtype=torch.float32) for s in (3, 4)]
    rsv = rsv_of(noisy, fixed, *pools)
    assert (rsv[:, 0] == -1).all()
    assert ((rsv[:, 1] > -1) & (rsv[:, 1] < -1 + 1e-7)).all()
    assert rsv[:, 2].isnan().all()


@pytest.mark.parametrize("noise", [(0.7, 0.7), (0.3, 1.2), (2.0, 0.5)])
def test_synthetic_distribution(noise):
    """Appendix A.1: x_a = x_0 + n_a, x_b = x_0 + n_b, z = w x_a + (1 - w) x_b.

    The closed form conditions one view on the other, Var(x_a | x_b); the estimator draws each from
    its marginal. Both variances shrink by 1 - correlation², so their ratio, and the RSV, agree.
    """
    n, w = 20_000, WEIGHTS.double()[1:-1]
    common = draws(n, 1, seed=5)
    pools = [common + s * draws(n, 1, seed=6 + i) for i, s in enumerate(noise)]
    variance = torch.tensor(noise).double() ** 2 + 1  # marginal
    conditional = variance - 1 / variance.flip(0)

    rsv = rsv_of(lambda a, b: w * a + (1 - w) * b, [common[:1], common[:1]], *pools)[0]

    def closed_form(of_a: Tensor, of_b: Tensor) -> Tensor:
        of_a, of_b = w**2 * of_a, (1 - w) ** 2 * of_b
        return (of_a - of_b) / (of_a + of_b)

    # Delta method: the log of the ratio of two Gaussian sample variances of correlation r² has
    # variance 4 (1 - r²) / n, and RSV = tanh(log ratio / 2).
    expected = closed_form(*conditional)
    error = (1 - expected**2) / 2 * (4 * (1 - 1 / variance.prod()) / n).sqrt()
    assert error.max() < 0.01
    assert ((rsv - expected).abs() < 4 * error).all()
    if noise[0] == noise[1]:
        torch.testing.assert_close(expected, (w**2 - (1 - w) ** 2) / (w**2 + (1 - w) ** 2))


def test_three_views_give_shares():
    w = torch.tensor([[1.0, 0.0, 0.5, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 2.0, 0.0]]).double()
    fixed = [draws(2, 1, seed=s) for s in (1, 2, 3)]
    pools = [draws(40, 1, seed=s) for s in (4, 5, 6)]
    rsv = rsv_of(lambda a, b, c: w[0] * a + w[1] * b + w[2] * c, fixed, *pools)
    variances = w**2 * torch.tensor([[np.var(pool.numpy())] for pool in pools])
    expected = (variances / variances.sum(0)).unsqueeze(1).expand(3, 2, 4)
    torch.testing.assert_close(rsv, expected, rtol=0, atol=1e-12, equal_nan=True)
    assert torch.equal(rsv[:, 0, 0], torch.tensor([1.0, 0, 0]).double())
    assert rsv[:, :, 3].isnan().all()


def test_dead_units_are_left_out_and_counted():
    fixed, pools = [draws(5, 1), draws(5, 1)], [draws(9, 1, seed=1), draws(9, 1, seed=2)]
    rsv = rsv_of(lambda a, b: torch.cat([a, b, b, (a - 99).relu(), a * 0 + 3.7], 1), fixed, *pools)
    assert dead_units(rsv) == 10
    assert rsv.nanmean().item() == pytest.approx(-1 / 3, abs=1e-15)
    assert polarization(rsv) == 1
    none = torch.full((2, 3), torch.nan)
    assert polarization(none).isnan() and dead_units(none) == 6
    assert rsv_histogram(none)[0].tolist() == [0] * 40


@pytest.mark.parametrize(("batch_size", "parts"), [(1, [30]), (7, [1, 29]), (64, [10, 10, 10])])
def test_batches_do_not_matter(batch_size, parts):
    most = []

    def watched(a: Tensor, b: Tensor) -> Tensor:
        most.append(len(a))
        return nonlinear(a, b)

    metric = RelativeSourceVariance(watched, FIXED, batch_size)
    for batch in zip(*(pool.split(parts) for pool in POOLS), strict=True):
        metric.update(*batch)
    expected = rsv_of(nonlinear, FIXED, *POOLS)
    torch.testing.assert_close(metric.compute(), expected, rtol=0, atol=1e-12)
    assert max(most) <= batch_size


def test_one_forward_pass_for_many_representations():
    calls = []

    def both(a: Tensor, b: Tensor) -> dict[str, Tensor]:
        calls.append(len(a))
        return {"a.b": nonlinear(a, b), "square": (a + b).square().unsqueeze(2), "sum": a.sum(1)}

    metric = RelativeSourceVariance(both, FIXED, batch_size=120)
    calls.clear()
    metric.update(*POOLS)
    assert calls == [120, 120]
    rsv = metric.compute()
    shapes = {name: tuple(r.shape) for name, r in rsv.items()}
    assert shapes == {"a.b": (4, 3), "square": (4, 2, 1), "sum": (4,)}
    for name in rsv:
        alone = rsv_of(lambda a, b, name=name: both(a, b)[name], FIXED, *POOLS)
        torch.testing.assert_close(rsv[name], alone, rtol=0, atol=1e-15)


def test_shares_of_the_pools_merge_and_synchronise_to_one():
    pools = [draws(31, 2, seed=3) * 3 - 100, draws(31, 2, seed=4)]

    def share(rank: int, **settings: Any) -> RelativeSourceVariance:
        metric = RelativeSourceVariance(nonlinear, FIXED, **settings)
        metric.update(*[pool[rank::3] for pool in pools])
        return metric

    def gather(state: Tensor, group: Any) -> list[Tensor]:
        """What each process gets; tests/test_ddp.py has real ones."""
        return [rank.sums if state.ndim else rank.draws for rank in ranks]

    together = {"dist_sync_fn": gather, "distributed_available_fn": lambda: True}
    ranks = [share(rank, **together) for rank in range(3)]
    merged, *others = map(share, range(3))
    for other in others:
        merged.merge_state(other)
    expected = rsv_of(nonlinear, FIXED, *pools)
    for metric in (merged, *ranks):
        torch.testing.assert_close(metric.compute(), expected, rtol=0, atol=1e-12, equal_nan=True)


def test_reset_looks_at_changed_weights():
    unit = nn.Linear(2, 3).double()

    def function(a: Tensor, b: Tensor) -> Tensor:
        return unit(torch.cat([a, b], 1)).tanh()

    fixed, pools = [draws(3, 1), draws(3, 1, seed=1)], [draws(8, 1, seed=2), draws(8, 1, seed=3)]
    metric = RelativeSourceVariance(function, fixed)
    metric.update(*pools)
    before = metric.compute()
    assert not metric.sums.requires_grad and not before.requires_grad
    with torch.no_grad():
        unit.weight.mul_(-3)
    metric.reset()
    metric.update(*pools)
    assert torch.equal(metric.compute(), rsv_of(function, fixed, *pools))
    assert not torch.equal(metric.compute(), before)


def test_forward_gives_the_batch_and_keeps_the_whole():
    metric = RelativeSourceVariance(nonlinear, FIXED)
    metric.update(*[pool[:20] for pool in POOLS])
    rest = [pool[20:] for pool in POOLS]
    torch.testing.assert_close(metric(*rest), rsv_of(nonlinear, FIXED, *rest))
    torch.testing.assert_close(metric.compute(), rsv_of(nonlinear, FIXED, *POOLS))


def test_metric_moves_pickles_and_owns_no_network():
    network = nn.Bilinear(2, 2, 3)
    first, second, *pools = (draws(9, 2, seed=s, dtype=torch.float32) for s in (1, 2, 3, 4))
    metric = RelativeSourceVariance(network, [first[:4], second[:4]])
    with torch.inference_mode():
        metric.update(*pools)
    metric.update(*pools)
    copied, cloned = pickle.loads(pickle.dumps(metric)), metric.clone()
    assert torch.equal(copied.compute(), metric.compute())
    with torch.no_grad():
        network.weight.zero_()  # clones share it, pickled copies do not
    for each, dead in ((cloned, True), (copied, False)):
        each.reset()
        each.update(*pools)
        assert bool(each.compute().isnan().all()) == dead
    assert not list(metric.parameters()) and not metric.state_dict()
    copied.to("meta")
    assert {copied.sums.device.type, *(f.device.type for f in copied.fixed)} == {"meta"}
    assert network.weight.device.type == "cpu"


def test_histogram_equals_numpy():
    rsv = torch.cat([torch.linspace(-1, 1, 81), draws(500).clamp(-1, 1), torch.tensor([np.nan])])
    for bins in (40, 7):
        counts, edges = rsv_histogram(rsv, bins)
        expected, expected_edges = np.histogram(rsv[:-1].numpy(), bins=edges.numpy())
        np.testing.assert_array_equal(counts.numpy(), expected)
        np.testing.assert_allclose(expected_edges, np.linspace(-1, 1, bins + 1), atol=1e-15)
        assert counts.sum() == len(rsv) - 1


def test_bad_input_is_one_sentence():
    one, two = draws(2, 1), [draws(2, 1), draws(2, 1)]
    with pytest.raises(UserError, match="view 2 does not exist"):
        source_variance(linear, two, one, 2)
    with pytest.raises(UserError, match="pool holds no draws"):
        source_variance(linear, two, one[:0], 0)
    with pytest.raises(UserError, match=r"returned shape \[\] for 4 samples"):
        source_variance(lambda a, b: (a + b).sum(), two, one, 0)
    with pytest.raises(UserError, match="1 view"):
        relative_source_variance(one[:1])
    with pytest.raises(UserError, match=r"fixed has \[2\] samples"):
        RelativeSourceVariance(linear, [one])
    with pytest.raises(UserError, match=r"fixed has \[2, 1\] samples"):
        RelativeSourceVariance(linear, [one, one[:1]])
    for pools in ([one], [one, one[:1]], [one[:0], one[:0]]):
        with pytest.raises(UserError, match="give 2 views of equally many"):
            RelativeSourceVariance(linear, two).update(*pools)


def one_process(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    metric = RelativeSourceVariance(nonlinear, FIXED)
    metric.update(*[pool[rank:29:2] for pool in POOLS])
    torch.save(metric.compute(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    join_processes(start_processes(one_process, tmp_path))
    expected = rsv_of(nonlinear, FIXED, *[pool[:29] for pool in POOLS])
    for rank in range(WORLD):
        found = torch.load(tmp_path / f"{rank}.pt")
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
