"""Remedies against plain arithmetic, resumed to the bit, in third parties' projects; plasticity."""

from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_runs import Untrained, quiet_trainer
from test_windows import equal, train
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from critical_periods.callbacks import (
    DeficitWindow,
    DormantUnitReset,
    InitialWeightDecay,
    LayerReset,
    LearningRateRestart,
    Patching,
    PlasticityMonitor,
    ShrinkPerturb,
)
from critical_periods.callbacks.remedies.links import links
from critical_periods.core.errors import UserError
from critical_periods.core.project import Project
from critical_periods.deficits import Occlusion
from critical_periods.metrics.functional import effective_rank, stable_rank

IMAGES = torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(24) % 3


def all_remedies() -> list[Any]:
    return [
        ShrinkPerturb(0.9, 0.01, onset=1, removal=3, every_n_epochs=2),
        LayerReset(["head", "rest.0"], onset=1),
        DormantUnitReset(0.9, onset=1, every_n_epochs=1),
        InitialWeightDecay(0.1, onset=1, removal=3),
        Patching(onset=1, removal=3),
        PlasticityMonitor(samples=20, batches=4),
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], Path]:
    folder = tmp_path_factory.mktemp("whole")
    saver = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    return train(*all_remedies(), saver, epochs=3)[0], folder


@pytest.mark.parametrize("step", [7, 10])
def test_resumed_to_the_bit(whole, step):
    resumed, _, trainer = train(*all_remedies(), resume=whole[1] / f"step={step}.ckpt", epochs=3)
    assert equal(resumed, whole[0])
    assert trainer.callback_metrics["plasticity/distance"] > 0


def test_a_branch_leaves_a_trunk_without_remedies(whole, tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    train(saver, epochs=1)
    branch, _, _ = train(*all_remedies(), resume=tmp_path / "epoch=0.ckpt", epochs=3)
    assert equal(branch, whole[0])


def test_a_restart_waits_for_the_deficit_alone():
    deficit = DeficitWindow(Occlusion(views=[0]), 0, 1)
    _, diary, _ = train(deficit, LearningRateRestart(), Patching(onset=1, removal=2), epochs=3)
    rates = diary.epochs("rate")
    assert rates[1] == rates[0] > rates[2]
    # With remedies alone there is no removal that it could wait for.
    with pytest.raises(UserError, match="removal of a window, but this run has none"):
        train(LearningRateRestart(), Patching(onset=1, removal=2), epochs=3)


# Third parties' projects, with a rate of 0, so that nothing but the remedies changes weights.


def wide() -> nn.Sequential:
    """Two convolutions, the first with two units that are dead, and a head."""
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Conv2d(6, 4, 3),
        nn.ReLU(), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    nn.init.constant_(network[1].bias[:2], -50)
    return network


def project(
    framework: Any = pl, network: nn.Module | None = None, rate: float = 0.0, fused: bool = False
) -> Any:
    class Project(framework.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.network = network or wide()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            views = batch[0] if isinstance(batch[0], list) else [batch[0]]
            return F.cross_entropy(self.network(*views), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=rate, momentum=0.9, fused=fused)

    return Project()


def fit(module: Any, *callbacks: Any, framework: Any = pl, epochs: int = 2, **settings: Any) -> Any:
    trainer = quiet_trainer(*callbacks, framework=framework, max_epochs=epochs, **settings)
    trainer.fit(module, DataLoader(TensorDataset(IMAGES, TARGET), 8))
    return trainer


def weights(module: Any) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in module.named_parameters()}


@pytest.mark.parametrize("framework", [pl, lightning.pytorch])
def test_shrink_and_perturb_has_its_moments(framework):
    module = project(framework, nn.Sequential(nn.Flatten(), nn.Linear(64, 200), nn.Linear(200, 3)))
    before = weights(module)
    fit(module, ShrinkPerturb(0.4, 0.02, onset=1), framework=framework)
    added = weights(module)["network.1.weight"] - 0.4 * before["network.1.weight"]
    count = added.numel()
    assert abs(added.mean()) < 4 * 0.02 / count**0.5
    assert added.std().item() == pytest.approx(0.02, rel=4 / (2 * count) ** 0.5)
    # Without noise it is exact, and a second time goes on from the first.
    module = project()
    before = weights(module)
    fit(module, ShrinkPerturb(0.5, 0, every_n_epochs=1), epochs=3)
    assert all(torch.equal(one, before[name] / 8) for name, one in weights(module).items())


def test_layer_reset_draws_named_layers_alone_and_differently_by_epoch():
    found = []
    for onset in (0, 1):
        module = project()
        before = weights(module)
        fit(module, LayerReset(["3"], onset=onset))
        after = weights(module)
        assert {n for n in after if not torch.equal(after[n], before[n])} == {
            "network.3.weight", "network.3.bias",
        }  # fmt: skip
        assert after["network.3.weight"].abs().max() <= 1 / 54**0.5
        found.append(after["network.3.weight"])
    assert not torch.equal(*found)


def test_momentum_of_reset_layers_is_forgotten_in_fused_steps_too():
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
            state = trainer.optimizers[0].state
            seen.append([bool(of["momentum_buffer"].any()) for of in state.values()])

    fit(project(rate=0.1, fused=True), LayerReset(["3"], onset=1), Watch())
    # Of the second epoch's first batch: convolution, norm, the layer that was reset, head.
    assert seen[3] == [True, True, True, True, False, False, True, True]


def test_dormant_units_by_a_loop():
    module = project()
    before = weights(module)
    with torch.no_grad():
        assert set(links(module.network.eval(), [IMAGES[:2]])) == {"0", "3"}
    hidden = module.network[:3](IMAGES[:8])
    scores = [hidden[:, unit].abs().mean().item() for unit in range(6)]
    dead = [score <= 0.1 * sum(scores) / 6 for score in scores]
    assert dead[:2] == [True, True] and not all(dead)
    fit(module.train(), DormantUnitReset(onset=0), limit_train_batches=1, epochs=1)
    after = weights(module)
    for unit, is_dead in enumerate(dead):
        same = torch.equal(after["network.0.weight"][unit], before["network.0.weight"][unit])
        assert same != is_dead
        outgoing = after["network.3.weight"][:, unit]
        assert torch.equal(outgoing, before["network.3.weight"][:, unit] * (not is_dead))
        assert after["network.1.bias"][unit] == (0 if is_dead else before["network.1.bias"][unit])


def test_links_leave_shortcuts_and_shared_layers_out():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into = nn.Linear(64, 8)
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.twice, self.norm, self.head = nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.into(x.flatten(1))
            x = x + self.second(self.first(x).relu())
            return self.head(self.norm(self.twice(self.twice(x).relu())))

    with torch.no_grad():
        assert set(links(Block().eval(), [IMAGES[:2]])) == {"first"}


def test_initial_weight_decay_by_a_loop():
    module = project(rate=0.1)
    start = weights(module)
    seen: list[dict[str, Tensor]] = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
            names = [name for name, _ in module.named_parameters()]
            grads = [one.grad.clone() for one in module.parameters()]
            seen.append(dict(zip(names, grads, strict=True)) | {"now": weights(module)})

    # One looks before it acts and one after.
    fit(module, Watch(), InitialWeightDecay(0.3, onset=1), Watch())
    for place, (plain, changed) in enumerate(zip(seen[::2], seen[1::2], strict=True)):
        for name, one in start.items():
            added = 0.3 * (plain["now"][name] - one) if place >= 3 else 0
            assert torch.allclose(changed[name], plain[name] + added, atol=1e-7)


def test_patching_covers_the_good_eye():
    seen = []

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 3)

        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            seen.append([one.abs().sum().item() > 0 for one in (left, right)])
            return self.head((left + right).flatten(1))

    class Pairs(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 8

        def __getitem__(self, place: int) -> Any:
            return [IMAGES[place], IMAGES[place + 8]], TARGET[place]

    trainer = quiet_trainer(Patching(view=1, onset=1, removal=2), max_epochs=3)
    trainer.fit(project(network=Two()), DataLoader(Pairs(), 8))
    assert seen == [[True, True], [True, False], [True, True]]
    assert trainer.callback_metrics["patching/active"] == 0


# Plasticity.


def test_plasticity_by_plain_loops_and_without_a_trace():
    plain = project(rate=0.1)
    fit(plain)
    module = project(rate=0.1)
    start = weights(module)
    monitor = PlasticityMonitor(every_n_epochs=None, samples=24, batches=3)
    found = fit(module, monitor).callback_metrics
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(plain).values(), weights(module).values(), strict=True)
    )
    network, rows = module.network.eval(), []
    hidden = network[:3](IMAGES)
    means = hidden.abs().mean((0, 2, 3))
    assert found["plasticity/dormant/2"] == (means <= 0.025 * means.mean()).float().mean()
    features = hidden.mean((2, 3)).double()
    assert found["plasticity/rank/2"].item() == pytest.approx(effective_rank(features).item())
    assert found["plasticity/stable_rank/2"].item() == pytest.approx(stable_rank(features).item())
    squares = [(one - start[name]).square().sum() for name, one in weights(module).items()]
    assert found["plasticity/distance"].item() == pytest.approx(sum(squares).sqrt().item())
    for part in range(3):
        module.zero_grad()
        some = slice(8 * part, 8 * part + 8)
        F.cross_entropy(network(IMAGES[some]), TARGET[some]).backward()
        rows.append(torch.cat([one.grad.flatten() for one in module.parameters()]))
    norm = torch.stack(rows).mean(0).norm().item()
    assert found["plasticity/gradient_norm"].item() == pytest.approx(norm, rel=1e-4)
    cosines = [
        F.cosine_similarity(rows[a], rows[b], dim=0).item() for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert found["plasticity/gradient_confusion"].item() == pytest.approx(min(cosines), rel=1e-4)
    assert found["plasticity/gradient_cosine"].item() == pytest.approx(sum(cosines) / 3, rel=1e-4)
    assert not any(one._forward_hooks for one in module.modules())


class Odd(nn.Module):
    """Weights that nothing draws anew, and no activation function."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(64, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.scale


@pytest.mark.parametrize(
    ("make", "sentence", "network"),
    [
        (lambda: ShrinkPerturb(1.5), "shrink=1.5 of ShrinkPerturb must lie between 0 and 1", None),
        (lambda: ShrinkPerturb(noise=-1), "noise=-1 of ShrinkPerturb must not be negative", None),
        (lambda: ShrinkPerturb(every_n_epochs=0), "must be at least 1", None),
        (lambda: ShrinkPerturb(onset=1, removal=2, every_n_epochs=3), "longer than its w", None),
        (lambda: ShrinkPerturb(onset=2), r"ShrinkPerturb \(onset=2, .* beyond the last", None),
        (lambda: LayerReset([]), "must be a list of module names", None),
        (lambda: LayerReset(["6.weight"]), "layers of LayerReset names '6.weight', which", None),
        (lambda: LayerReset(["5"]), "names '5', which has no weights", None),
        (lambda: LayerReset([""]), "no reset_parameters that would draw them anew", Odd()),
        (lambda: DormantUnitReset(-1), "threshold=-1 of DormantUnitReset must not be neg", None),
        (lambda: DormantUnitReset(layers=["x"]), "names 'x', which the network d", None),
        (lambda: DormantUnitReset(layers=["6"]), "names '6', whose units are not taken", None),
        (lambda: DormantUnitReset(), "finds no layer of Odd whose units", Odd()),
        (lambda: InitialWeightDecay(-1), "decay=-1 of InitialWeightDecay must not be neg", None),
        (lambda: Patching(), "Patching covers the good eye of two or more, but the data", None),
        (lambda: PlasticityMonitor(), "activation functions among the modules of Odd", Odd()),
        (lambda: PlasticityMonitor(layers=["no"]), "layers of PlasticityMonitor names 'no'", None),
        (lambda: PlasticityMonitor(batches=1), "batches=1 of PlasticityMonitor must be at l", None),
    ],
)  # fmt: skip
def test_mistakes_get_a_sentence_before_the_first_step(make, sentence, network):
    with pytest.raises(UserError, match=sentence):
        fit(project(network=network, rate=0.1), make(), Untrained())


def test_a_network_that_cannot_be_called_is_told_of_before_the_first_step():
    class Nameless(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = wide()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with pytest.raises(UserError, match=r"forward of its own.* Project\(network='net'\)"):
        fit(Nameless(), DormantUnitReset(), Untrained())
    fit(Nameless(), DormantUnitReset(project=Project(network="net")))


def test_the_first_weights_must_be_known(tmp_path, monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    saver = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    fit(project(rate=0.1), saver, epochs=1, enable_checkpointing=True)
    trainer = quiet_trainer(InitialWeightDecay(0.1, onset=1), max_epochs=2)
    loader = DataLoader(TensorDataset(IMAGES, TARGET), 8)
    with pytest.raises(
        UserError, match="lacks them and nothing was seeded; seed the run as before"
    ):
        trainer.fit(project(rate=0.1), loader, ckpt_path=tmp_path / "epoch=0.ckpt")
