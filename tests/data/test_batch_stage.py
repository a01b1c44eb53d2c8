"""What holds for the batches of all DataModules of images, whatever their views are."""

from typing import Any

import pytest
import torch
from batches import by_index, evaluated, joined, measured, place, training

from critical_periods.data import (
    MovingDigitsDataModule,
    StereoDigitsDataModule,
    StereogramDataModule,
)
from critical_periods.data.images import ImageDataModule
from critical_periods.deficits import Occlusion

MODULES: dict[str, tuple[type[ImageDataModule], dict[str, Any]]] = {
    "digits": (StereoDigitsDataModule, {"width": 11}),
    "digits per view": (StereoDigitsDataModule, {"augment": "per_view"}),
    "stereograms": (StereogramDataModule, {"size": 16}),
    "moving digits": (MovingDigitsDataModule, {}),
}


pytestmark = pytest.mark.parametrize("kind", MODULES)


def ready(kind: str, **settings: Any) -> Any:
    module, own = MODULES[kind]
    data = module(**(own | settings))
    data.setup()
    return data


def test_training_depends_on_seed_epoch_and_index_alone(kind, monkeypatch):
    settings = {"limit_train": 302, "mask_probability": 0.2}
    expected = training(ready(kind, **settings), epoch=5)
    order = expected.index.argsort()
    parts = []
    for rank in range(2):
        data = ready(kind, batch_size=40, **settings)
        place(data, rank, 2)
        training(data, epoch=0)  # what came before does not matter
        parts.append(training(data, epoch=5))
    both = joined(parts)
    assert torch.equal(by_index(both), expected.views[order])
    assert torch.equal(both.target[both.index.argsort()], expected.target[order])
    others = [training(ready(kind, **settings), epoch=4)]
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    others.append(training(ready(kind, **settings), epoch=5))
    for other in others:
        # Half of a stereogram's dots are alike by chance, and most of the black around a digit.
        same = (by_index(other) == expected.views[order]).double()
        assert same.mean() < {"stereograms": 0.6, "moving digits": 0.1}.get(kind, 0.9)
        assert same.flatten(1).amin(1).mean() < 0.1
        if kind == "moving digits":
            alike = (other.target[other.index.argsort()] % 4) == expected.target[order] % 4
            assert (alike.double().mean() - 0.25).abs() < 0.1


def test_evaluation_never_changes(kind, monkeypatch):
    data = ready(kind, val_split=300)
    before = {split: evaluated(data, split) for split in ("val", "test")}
    training(data, epoch=7)
    monkeypatch.setenv("PL_GLOBAL_SEED", "4")
    other = ready(kind, val_split=300, batch_size=33, mask_probability=0.5)
    other.deficits.fill([Occlusion()])
    for split, one in before.items():
        another = evaluated(other, split)
        assert torch.equal(by_index(one), by_index(another))
        assert torch.equal(one.target, another.target)
    few = measured(other, "test", 50)
    assert torch.equal(few.views, before["test"].views[few.index])
    assert torch.equal(few.target, before["test"].target[few.index])
    if kind in ("stereograms", "moving digits"):
        # A digit to learn from and one to test on share an index, but not their scene.
        learnt = measured(other, "train")
        alike = learnt.views[:, 0] == before["test"].views[learnt.index, 0]
        low, high = {"stereograms": (0.49, 0.51), "moving digits": (0.0, 0.1)}[kind]
        assert low <= alike.double().mean() <= high


def test_masks_and_deficits_find_their_place(kind):
    data = ready(kind)
    clean = training(data, epoch=2)
    data.deficits.fill([Occlusion(views=[1])])
    closed = training(data, epoch=2)
    assert torch.equal(closed.views[:, 0], clean.views[:, 0]) and not closed.views[:, 1].any()
    assert torch.equal(closed.target, clean.target)
    lost = ~training(ready(kind, mask_probability=0.3)).views.flatten(2).any(-1)
    assert (lost.double().mean(0) - 0.3).abs().max() < 4 * (0.21 / 1000) ** 0.5
    assert not lost.all(1).any()


def test_the_fingerprint_is_of_the_data_alone(kind):
    data = ready(kind)
    plain, train = data.fingerprint(), data._images["train"]
    assert plain == ready(kind, limit_train=30, batch_size=7).fingerprint()
    changed = {"clutter": True} if kind.startswith("digits") else {"size": 32 - 7}
    assert plain != ready(kind, **changed).fingerprint()
    pixels = train.pixels.clone()
    pixels[5, 0, 3, 3] += 1
    data._images["train"] = train._replace(pixels=pixels)
    assert plain != data.fingerprint()
