"""Dissociation and its control, label noise: where views and targets come from, and training."""

import functools
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from batches import batches, joined, training
from processes import WORLD, join_processes, start_processes
from small_runs import clean_samples, quiet_trainer
from torch import Tensor
from torch.nn import functional as F

from critical_periods.callbacks import DeficitWindow, FisherMonitor, UsableInformationMonitor
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.data import StereoDigitsDataModule
from critical_periods.deficits import Dissociation, LabelNoise
from critical_periods.metrics.functional import fisher_trace
from critical_periods.models import SplitAllCNN
from critical_periods.tasks import ClassificationTask

HEADS: list[int | str] = ["both", 0, 1]


def numbered(size: int, views: int = 2) -> Batch:
    """Every pixel of sample i, in every view, is i; so is its class."""
    number = torch.arange(size)
    images = number.view(-1, 1, 1, 1, 1).expand(size, views, 2, 3, 3).float()
    return Batch(images, number, torch.full((size,), -1), number)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sources(batch: Batch) -> Tensor:
    """Which image each view shows, [B, V]."""
    flat = batch.views.flatten(2)
    assert (flat == flat[..., :1]).all()
    return flat[..., 0].long()


# The deficit.


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("size", [2, 3, 64])
def test_each_view_moves_by_a_permutation_that_leaves_none_in_place(size, views):
    batch = numbered(size, views)
    for seed in range(5):
        shown = sources(Dissociation()(batch, seeded(seed)))
        assert torch.equal(shown[:, 0], torch.arange(size))
        for view in range(1, views):
            assert torch.equal(shown[:, view].sort().values, torch.arange(size))
            assert (shown[:, view] != torch.arange(size)).all()
    assert torch.equal(batch.views, numbered(size, views).views)


@pytest.mark.parametrize(
    ("p", "views"), [(0.0, None), (0.5, None), (1.0, None), (0.2, [1]), (0.7, [0]), (0.5, [0, 2])]
)
def test_the_target_is_that_of_the_view_that_it_is_said_to_be(p, views):
    size, available = 4000, 3 if views == [0, 2] else 2
    result = Dissociation(p, views)(numbered(size, available), seeded())
    shown = sources(result)
    assert torch.equal(result.target, shown.gather(1, result.target_view[:, None])[:, 0])
    moved = [1] if views is None else views
    for view in range(available):
        share = (result.target_view == view).float().mean().item()
        expected = p / len(moved) if view in moved else 1 - p
        assert abs(share - expected) <= 4 * (expected * (1 - expected) / size) ** 0.5
    assert torch.equal(result.index, torch.arange(size))


def test_the_generator_alone_decides():
    one, same, other = (Dissociation()(numbered(64), seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not torch.equal(one.views, other.views)
    assert not torch.equal(one.target_view, other.target_view)


@pytest.mark.parametrize(
    ("deficit", "batch", "sentence"),
    [
        ({"views": [0, 1]}, numbered(4), r"moves views \[0, 1\] of the 2 .* exactly one must stay"),
        ({"views": [1]}, numbered(4, 3), r"moves views \[1\] of the 3 .* exactly one must stay"),
        ({}, numbered(4, 1), r"moves views \[\] of the 1 .* at least one move"),
        ({"views": [2]}, numbered(4), "names view 2, but the data has 2 views"),
    ],
)
def test_what_cannot_be_dissociated_is_one_sentence(deficit, batch, sentence):
    with pytest.raises(UserError, match=sentence):
        Dissociation(**deficit).check(batch)


# Label noise: the same targets, with views that stay together.


@pytest.mark.parametrize("size", [2, 3, 64])
def test_every_target_is_another_ones_and_each_is_used_once(size):
    batch = numbered(size)
    target = LabelNoise(p=1.0)(batch, seeded()).target
    assert sorted(target.tolist()) == batch.target.tolist()
    assert (target != batch.target).all()


@pytest.mark.parametrize("p", [0.0, 0.3, 0.5, 1.0])
def test_as_many_targets_are_another_ones_as_p_says(p):
    size = 20_000
    wrong = (LabelNoise(p)(numbered(size), seeded()).target != torch.arange(size)).double().mean()
    assert wrong == pytest.approx(p, abs=4 * (p * (1 - p) / size) ** 0.5)


@pytest.mark.parametrize("p", [0.25, 0.5])
def test_targets_are_as_noisy_as_under_dissociation(p):
    batch = numbered(30_000)
    batch = batch._replace(target=batch.target % 10)
    rates = [
        (deficit(batch, seeded(1)).target == batch.target).double().mean()
        for deficit in (LabelNoise(p), Dissociation(p))
    ]
    # Another sample is of the same class with probability 2999 / 29999.
    right = 1 - p + p * 2999 / 29_999
    error = (right * (1 - right) / 30_000) ** 0.5
    assert rates == pytest.approx([right, right], abs=4 * error)


def test_views_stay_and_stay_together():
    batch = numbered(16)
    noisy = LabelNoise()(batch, seeded())
    assert noisy.views is batch.views
    assert torch.equal(noisy.target_view, batch.target_view)
    assert torch.equal(batch.target, torch.arange(16))


# Both.

each_deficit = pytest.mark.parametrize("deficit", [Dissociation, LabelNoise])


@each_deficit
def test_all_other_images_are_equally_likely(deficit):
    counts, generator = torch.zeros(4, 4), seeded()
    for _ in range(3000):
        counts[torch.arange(4), deficit(p=1.0)(numbered(4), generator).target] += 1
    expected = 3000 * (1 - torch.eye(4)) / 3
    assert (counts - expected).abs().max() < 4 * (3000 * 1 / 3 * 2 / 3) ** 0.5
    assert counts.diagonal().sum() == 0


@each_deficit
def test_soft_targets_move_whole(deficit):
    batch = numbered(16)
    soft = F.one_hot(batch.target).double() * 0.9 + 0.1 / 16
    hard, mixed = (deficit()(one, seeded(3)) for one in (batch, batch._replace(target=soft)))
    assert torch.equal(mixed.target, soft[hard.target])


@each_deficit
def test_a_batch_of_one_stays_as_it_is_and_is_refused_before_training(deficit):
    batch = numbered(1)
    assert deficit(p=1.0)(batch, seeded()) is batch
    sentence = f"{deficit.__name__} .* one sample; choose a batch_size of at least 2"
    with pytest.raises(UserError, match=sentence):
        deficit().check(batch)
    deficit().check(numbered(2))


@each_deficit
def test_p_is_a_probability(deficit):
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match=rf"p=.* of {deficit.__name__} must be a probability"):
            deficit(p)


# Training.


class Watch(pl.Callback):
    """Keeps the batches of training, and what each does to the head's rows: a sum for each head."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.gradients: list[Tensor] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        # DDP takes no parameter without a gradient, even of a head without samples.
        assert all(weight.grad is not None for weight in pl_module.parameters())
        gradient = pl_module.network.trunk.head.bias.grad
        self.gradients.append(gradient.view(-1, 10).abs().sum(1).clone())


def trained(data: Any, *callbacks: pl.Callback, epochs: int = 2, **options: Any) -> Any:
    """The task after training with its three heads, and its trainer."""
    pl.seed_everything(5, verbose=False)
    task = ClassificationTask(
        SplitAllCNN(1, 4, in_channels=1, heads=HEADS),
        optimizer=functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    )
    trainer = quiet_trainer(*callbacks, max_epochs=epochs, limit_val_batches=1, **options)
    trainer.fit(task, data)
    return task, trainer


def test_in_the_window_the_heads_of_the_eyes_learn_and_after_it_the_one_for_both():
    watch = Watch()
    data = StereoDigitsDataModule(limit_train=64, batch_size=32)
    window = DeficitWindow(Dissociation(views=[1]), removal=1)
    trained(data, window, watch)
    inside, after = watch.batches[:2], watch.batches[2:]
    assert all(set(batch.target_view.tolist()) == {0, 1} for batch in inside)
    assert all(set(batch.target_view.tolist()) == {-1} for batch in after)
    for both, left, right in watch.gradients[:2]:
        assert both == 0 and left > 0 and right > 0
    for both, left, right in watch.gradients[2:]:
        assert both > 0 and left == 0 and right == 0


def test_views_move_within_a_batch_and_targets_are_taken_from_there():
    data = StereoDigitsDataModule(limit_train=64, batch_size=64, augment="none")
    data.setup()
    before = training(data)
    data.deficits.fill([Dissociation()])
    after = training(data)
    # The left crop is in place, the right one is that of the sample that ``source`` says.
    assert torch.equal(before.index, after.index)
    assert torch.equal(before.views[:, 0], after.views[:, 0])
    pairs = (after.views[:, None, 1] == before.views[None, :, 1]).flatten(2).all(2)
    assert (pairs.sum(1) == 1).all() and not pairs.diagonal().any()
    source = torch.where(after.target_view == 1, pairs.int().argmax(1), torch.arange(64))
    assert 0 < after.target_view.sum() < 64
    assert torch.equal(after.target, before.target[source])


def test_evaluation_and_prediction_are_by_the_head_for_both():
    task = ClassificationTask(SplitAllCNN(1, 4, in_channels=1, heads=HEADS)).eval()
    views = torch.randn(8, 2, 1, 16, 16, generator=seeded())
    batch = Batch(views, torch.arange(8), torch.tensor([0, 1] * 4), torch.arange(8))
    both = task.network(*views.unbind(1))[:, 0]
    torch.testing.assert_close(task(*views.unbind(1)), both)
    torch.testing.assert_close(task.predict_step(batch, 0), both.softmax(1))


def test_measures_are_those_of_a_network_with_the_head_for_both_alone():
    data = StereoDigitsDataModule(limit_train=64, batch_size=32)
    monitors = FisherMonitor(every_n_epochs=None, samples=16), UsableInformationMonitor()
    task, trainer = trained(data, *monitors, epochs=1)
    alone = SplitAllCNN(1, 4, in_channels=1)
    state = task.network.state_dict()
    state |= {name: state[name][:10] for name in ("trunk.head.weight", "trunk.head.bias")}
    alone.load_state_dict(state)
    views = clean_samples(data, "train", 16).views.unbind(1)
    total, layers = fisher_trace(alone, views)
    measured = trainer.callback_metrics
    torch.testing.assert_close(measured["fisher/trace"].double(), total, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        measured["fisher/trace/trunk.head"].double(), layers["trunk.head"], rtol=1e-5, atol=0
    )
    assert task.network(*views).shape == (16, 3, 10)  # all heads again


# Two processes.


def run_process(rank: int, folder: Path) -> None:
    watch = Watch()
    window = DeficitWindow(Dissociation(views=[1]), removal=1)
    data = StereoDigitsDataModule(limit_train=128, batch_size=32, augment="none")
    task, _ = trained(data, window, watch, devices=WORLD, strategy="ddp")
    torch.save(
        {"batches": [tuple(batch) for batch in watch.batches], "weights": task.state_dict()},
        folder / f"{rank}.pt",
    )


@pytest.mark.slow
def test_two_processes_permute_their_batches_as_one_and_no_parameter_is_unused(tmp_path):
    join_processes(start_processes(run_process, tmp_path))
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    pl.seed_everything(5, verbose=False)
    data = StereoDigitsDataModule(limit_train=128, batch_size=64, augment="none")
    data.setup()
    data.deficits.fill([Dissociation(views=[1])])
    expected = batches(data, data.train_dataloader())
    for number, batch in enumerate(expected):
        parts = [Batch(*rank["batches"][number]) for rank in ranks]
        assert all(map(torch.equal, joined(parts), batch))
        assert all(0 < part.target_view.sum() < len(part.target_view) for part in parts)
    for name, weight in ranks[0]["weights"].items():
        if "running" not in name and "num_batches" not in name:
            assert torch.equal(weight, ranks[1]["weights"][name]), name
