"""Batches of images in memory: what they are made of, and that they depend on nothing else."""

from typing import Any

import numpy as np
import pytest
import torch
from batches import batches, by_index, evaluated, joined, measured, place, training
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from critical_periods.core.errors import UserError
from critical_periods.data import DigitsDataModule, StereoDigitsDataModule
from critical_periods.data.clutter import scatter
from critical_periods.data.digits import read_digits
from critical_periods.data.images import ImageDataModule, shift_and_flip
from critical_periods.deficits import Blur, GaussianNoise, Occlusion, VerticalFlip


def ready(cls: type = StereoDigitsDataModule, **settings: Any) -> Any:
    data = cls(**settings)
    data.setup()
    return data


def normalised(data: ImageDataModule, split: str, index: Tensor) -> Tensor:
    """Images [N, C, H, W] by the textbook formula, in float64."""
    train, test = data.load()
    pixels = (train if split == "train" else test).pixels[index].double() / 255
    mean, std = (torch.tensor(list(each)).double().view(-1, 1, 1) for each in (data.mean, data.std))
    return (pixels - mean) / std


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), atol=1e-5, rtol=0)


# Digits.


def test_digits_are_those_of_scikit_learn():
    train, test = read_digits()
    assert train.pixels.shape == (1000, 1, 16, 16) and test.pixels.shape == (797, 1, 16, 16)
    assert train.pixels.dtype == torch.uint8 and train.target.dtype == torch.int64
    original = load_digits()
    large = F.interpolate(torch.tensor(original.images)[:, None], size=16, mode="bilinear")
    expected = (large / 16 * 255).numpy()
    found = torch.cat([train.pixels, test.pixels]).numpy().astype(float)
    labels = torch.cat([train.target, test.target]).numpy()
    # Each is there once, with its own label, within rounding.
    for digit in range(10):
        ours = np.sort(found[labels == digit].reshape(-1, 256).sum(1))
        theirs = np.sort(expected[original.target == digit].reshape(-1, 256).sum(1))
        assert np.abs(ours - theirs).max() < 128
    assert np.bincount(labels).tolist() == np.bincount(original.target).tolist()
    nearest = np.abs(found[:1] - expected).max(axis=(1, 2, 3))
    assert nearest.min() <= 0.5001 < np.sort(nearest)[1]


@pytest.mark.parametrize("clutter", [False, True])
def test_digits_constants_are_those_of_the_training_split(clutter):
    data = DigitsDataModule(clutter=clutter)
    pixels = data.load()[0].pixels.double() / 255
    assert data.mean == [round(pixels.mean().item(), 3)]
    assert data.std == [round(pixels.std().item(), 3)]


def test_clutter_is_fixed_and_shows_every_figure():
    train, test = read_digits(clutter=True)
    assert train.pixels.shape[1:] == (1, 24, 24) == test.pixels.shape[1:]
    assert torch.equal(train.target, read_digits()[0].target)
    assert torch.equal(train.pixels, read_digits.__wrapped__(clutter=True)[0].pixels)
    figures = (torch.rand(20, 1, 10, 10, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    pictures = scatter(figures, seed=1)
    assert torch.equal(pictures, scatter(figures, seed=1))
    assert not torch.equal(pictures, scatter(figures, seed=2))
    assert pictures.min() >= 0 and pictures.max() <= 1
    corners: set[tuple[int, ...]] = set()
    for figure, picture in zip(figures[:, 0], pictures[:, 0], strict=True):
        windows = picture.unfold(0, 10, 1).unfold(1, 10, 1)
        found = (windows[:, :, figure == 1] == 1).all(-1).nonzero().tolist()
        assert found
        corners.update(map(tuple, found))
    assert len(corners) > 10


# Splits.


def test_the_test_split_validates():
    data = ready()
    train, val, test = (evaluated(data, split) for split in ("train", "val", "test"))
    assert len(train.target) == 1000 and len(val.target) == len(test.target) == 797
    assert torch.equal(val.views, test.views)
    assert val.index.tolist() == list(range(797))
    assert torch.equal(val.target, data.load()[1].target)
    assert torch.equal(train.target, data.load()[0].target[train.index])
    assert torch.equal(evaluated(data, "predict").views, test.views)


@pytest.mark.parametrize(("val_split", "number"), [(100, 100), (0.25, 250), (10, 10)])
def test_val_split_holds_training_images_back(val_split, number):
    data = ready(val_split=val_split)
    train, val = training(data), evaluated(data, "val")
    assert len(val.index) == number
    assert sorted([*train.index.tolist(), *val.index.tolist()]) == list(range(1000))
    counts = val.target.bincount(minlength=10)
    assert counts.max() - counts.min() <= 1
    expected = normalised(data, "train", val.index)[..., :8]
    close(val.views[:, 0, :, :, :8], expected)
    assert len(evaluated(data).index) == 797


@pytest.mark.parametrize("number", [10, 137, 700])
def test_limit_train_is_fixed_and_balanced(monkeypatch, number):
    data = ready(limit_train=number, val_split=200)
    train = training(data)
    assert len(train.index) == number == len(train.index.unique())
    counts = train.target.bincount(minlength=10)
    assert counts.max() - counts.min() <= 1
    held_back = evaluated(data, "val").index
    assert not set(held_back.tolist()) & set(train.index.tolist())
    unlimited = ready(val_split=200)
    assert torch.equal(evaluated(unlimited, "val").index, held_back)
    monkeypatch.setenv("PL_GLOBAL_SEED", "99")
    again = training(ready(limit_train=number, val_split=200), epoch=2)
    assert set(again.index.tolist()) == set(train.index.tolist())
    if number > 10:
        fewer = training(ready(limit_train=number - 7, val_split=200))
        assert set(fewer.index.tolist()) < set(train.index.tolist())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"limit_train": 1001}, "limit_train=1001 asks for 1001 images; choose between 10 .* 1000"),
        ({"limit_train": 9}, "limit_train=9 asks for 9 images"),
        ({"limit_train": 951, "val_split": 50}, "limit_train=951 .* and 950"),
        ({"val_split": 9}, "val_split=9 asks for 9 images"),
        ({"val_split": -20}, "val_split=-20 asks for -20 images"),
        ({"val_split": 0.001}, "val_split=0.001 asks for 1 images"),
        ({"val_split": float("nan")}, "val_split=nan must be a whole number of images or a share"),
        ({"val_split": float("inf")}, "val_split=inf must be a whole number of images or a share"),
        ({"val_split": 1.5}, "val_split=1.5 must be a whole number of images or a share below 1"),
        ({"val_split": 1000}, "val_split=1000 leaves too few of the 1000 training images"),
        ({"val_split": 2000}, "val_split=2000 asks for 2000 images"),
        ({"width": 17}, "width=17 of the crops must lie between 1 and 16"),
        ({"width": 0}, "width=0 of the crops"),
        ({"mask_probability": 0.6}, "mask_probability=0.6 must lie between 0 and 0.5"),
        ({"mask_probability": -0.1}, "mask_probability=-0.1"),
        ({"augment": "per_eye"}, "augment='per_eye' is unknown; did you mean 'per_view'"),
    ],
)
def test_settings_that_do_not_fit(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        ready(**settings)
    assert training(ready(width=17, clutter=True)).views.shape[-1] == 24


def test_setup_twice_loads_once(monkeypatch):
    data = ready()
    monkeypatch.setattr(data, "load", None)
    data.setup("fit")
    assert data.num_classes == 10


# Augmentation.


def plain_shift_and_flip(images: Tensor, draws: Tensor, padding: int, flip: bool) -> Tensor:
    result = torch.zeros_like(images)
    height, width = images.shape[-2:]
    for sample, row, column in np.ndindex(len(images), height, width):
        down, right, mirror = draws[sample].tolist()
        source = width - 1 - column if flip and mirror < 0.5 else column
        y = row + int(down * (2 * padding + 1)) - padding
        x = source + int(right * (2 * padding + 1)) - padding
        if 0 <= y < height and 0 <= x < width:
            result[sample, :, row, column] = images[sample, :, y, x]
    return result


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("padding", "size"), [(0, (3, 4)), (1, (4, 3)), (4, (5, 6))])
def test_shift_and_flip_equals_a_plain_loop(padding, size, flip):
    generator = torch.Generator().manual_seed(padding)
    images = torch.randn(24, 2, *size, generator=generator)
    draws = torch.rand(24, 3, generator=generator)
    draws[0], draws[1] = 0.0, 1 - 2**-24
    actual = shift_and_flip(images, draws, padding, flip)
    assert torch.equal(actual, plain_shift_and_flip(images, draws, padding, flip))


def shifts(pictures: Tensor, originals: Tensor, reach: int = 2) -> list[set[tuple[int, int]]]:
    """By which shifts each picture is its original, over zeros."""
    padded = F.pad(originals, [reach] * 4)
    height, width = originals.shape[-2:]
    found: list[set[tuple[int, int]]] = [set() for _ in pictures]
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            moved = padded[..., dy : dy + height, dx : dx + width]
            equal = torch.isclose(pictures.double(), moved, atol=1e-5).flatten(1).all(1)
            for sample in equal.nonzero().flatten().tolist():
                found[sample].add((dy - reach, dx - reach))
    return found


def test_shared_augmentation_keeps_two_halves_of_one_picture():
    data = ready(width=8)
    batch = training(data, epoch=1)
    left, right = batch.views.unbind(1)
    found = shifts(left + right, normalised(data, "train", batch.index))
    assert all(found)
    counts = torch.zeros(5, 5)
    for options in found:
        if len(options) == 1:
            dy, dx = next(iter(options))
            counts[dy + 2, dx + 2] += 1
    # All 25 shifts, equally often: within 5 standard errors of 1,000 / 25.
    assert counts.sum() > 900 and (counts - 40).abs().max() < 5 * 40**0.5
    whole = training(ready(width=16), epoch=1)
    assert torch.equal(whole.views[:, 0], whole.views[:, 1])
    assert torch.equal(left + right, whole.views[:, 0])


def test_augmentation_per_view():
    data = ready(width=16, augment="per_view")
    batch = training(data)
    originals = normalised(data, "train", batch.index)
    left, right = (shifts(view, originals) for view in batch.views.unbind(1))
    assert all(left) and all(right)
    alike = sum(bool(a & b) for a, b in zip(left, right, strict=True))
    # A 25th of the pairs, and the few digits that look alike when shifted.
    assert alike < 1000 / 25 + 5 * (1000 / 25) ** 0.5


def test_no_augmentation():
    data = ready(width=16, augment="none")
    batch = training(data, epoch=3)
    expected = normalised(data, "train", batch.index)
    close(batch.views, expected[:, None].expand_as(batch.views))


def test_images_that_stay_in_main_memory_make_the_same_batches(monkeypatch):
    data = ready(limit_train=200)
    expected = training(data)
    monkeypatch.setattr(data, "_is_resident", lambda device: False)
    assert all(torch.equal(a, b) for a, b in zip(training(data), expected, strict=True))


# Crops, deficits and their order.


@pytest.mark.parametrize(
    ("width", "clutter"), [(1, False), (8, False), (11, False), (16, False), (24, True)]
)
def test_each_view_keeps_its_side(width, clutter):
    data = ready(width=width, clutter=clutter)
    batch = evaluated(data, "val")
    whole = normalised(data, "test", batch.index)
    size = whole.shape[-1]
    left, right = batch.views.double().unbind(1)
    close(left[..., :width], whole[..., :width])
    close(right[..., size - width :], whole[..., size - width :])
    assert not left[..., width:].any() and not right[..., : size - width].any()


def test_one_eye_sees_everything():
    data = ready(DigitsDataModule)
    batch = evaluated(data, "val")
    assert batch.views.shape == (797, 1, 1, 16, 16)
    expected = normalised(data, "test", batch.index)
    close(batch.views[:, 0], expected)
    assert batch.target_view.tolist() == [-1] * 797
    assert data.fingerprint() == ready().fingerprint()


def test_blur_comes_before_the_crop():
    data = ready(width=8, augment="none", limit_train=100)
    data.deficits.fill([Blur(factor=4, views=[1])])
    batch = training(data)
    whole = normalised(data, "train", batch.index)
    blurred = Blur(factor=4).degrade(whole)
    close(batch.views[:, 0, ..., :8].double(), whole[..., :8])
    close(batch.views[:, 1, ..., 8:].double(), blurred[..., 8:])
    assert not batch.views[:, 1, ..., :8].any()
    # The other order would have let the dark half leak in.
    cropped = whole.clone()
    cropped[..., :8] = 0
    other = Blur(factor=4).degrade(cropped)
    assert (other[..., 8:] - blurred[..., 8:]).abs().max() > 0.1


def test_deficits_come_after_augmentation():
    data = ready(width=16, limit_train=300)
    plain = training(data, epoch=2)
    data.deficits.fill([VerticalFlip(views=[0])])
    flipped = training(data, epoch=2)
    assert torch.equal(flipped.views[:, 0], plain.views[:, 0].flip(-2))
    assert torch.equal(flipped.views[:, 1], plain.views[:, 1])


def test_noise_is_normal_as_the_network_sees_it_and_drawn_by_name():
    data = ready(width=16, batch_size=100, limit_train=300)
    data.deficits.fill([GaussianNoise(views=[1])])
    first, again = training(data, epoch=1), training(data, epoch=1)
    assert torch.equal(first.views, again.views)
    noise = first.views[:, 1]
    assert noise.mean().abs() < 4 / noise.numel() ** 0.5
    assert (noise.var() - 1).abs() < 4 * (2 / noise.numel()) ** 0.5
    draws = [training(data, epoch=2).views[:, 1], noise[:100], noise[100:200], noise[200:]]
    place(data, rank=1, world_size=2)
    draws.append(training(data, epoch=1).views[:, 1])
    for a in range(len(draws)):
        for b in range(a):
            assert not torch.equal(draws[a][:50], draws[b][:50])


def test_deficits_and_masks_never_reach_evaluation():
    data = ready(mask_probability=0.5, val_split=300)
    clean = {split: measured(data, split) for split in ("train", "val", "test")}
    data.deficits.fill([Occlusion()])
    assert not training(data).views.any()
    for split, before in clean.items():
        after = measured(data, split)
        assert torch.equal(after.views, before.views)
        expected = normalised(data, "test" if split == "test" else "train", after.index)[..., :8]
        close(after.views[:, 0, ..., :8], expected)
        if split != "train":
            assert torch.equal(by_index(evaluated(data, split)), by_index(before))


# Masked views.


@pytest.mark.parametrize("probability", [0.1, 0.35, 0.5])
def test_masks_have_their_rate_and_never_both(probability):
    data = ready(mask_probability=probability, augment="none", batch_size=1000)
    clean = by_index(training(ready(augment="none")))
    lost = []
    for epoch in range(10):
        views = by_index(training(data, epoch))
        gone = ~views.flatten(2).any(-1)
        lost.append(gone)
        assert torch.equal(views[~gone], clean[~gone])
    lost_views = torch.cat(lost)
    rates = lost_views.double().mean(0)
    error = (probability * (1 - probability) / len(lost_views)) ** 0.5
    assert ((rates - probability).abs() < 4 * error).all()
    assert not lost_views.all(1).any()
    if probability == 0.5:
        assert lost_views.any(1).all()
    assert torch.equal(lost[3], ~by_index(training(data, 3)).flatten(2).any(-1))
    assert not torch.equal(lost[3], lost[4])


# Samples to measure on.


def test_measurement_samples_are_few_fixed_and_clean():
    data = ready(batch_size=30)
    first, again = (
        joined(batches(data, data.measurement_loader("train", 100), epoch)) for epoch in (1, 2)
    )
    assert len(first.index.unique()) == 100
    # Spread over the split, which may be sorted by class.
    assert (first.index // 250).bincount(minlength=4).min() > 10
    assert torch.equal(first.views, again.views) and torch.equal(first.index, again.index)
    expected = normalised(data, "train", first.index)[..., :8]
    close(first.views[:, 0, ..., :8], expected)
    fewer = measured(data, "train", 40)
    assert torch.equal(fewer.index, first.index[:40])
    assert len(measured(data, "test", 5000).index) == 797
    with pytest.raises(UserError, match="split='valid' is not one of"):
        data.measurement_loader("valid")


def test_measurement_samples_are_shared_out(world_size=3):
    data = ready(batch_size=30)
    whole = measured(data, "val", 100).index
    shares = []
    for rank in range(world_size):
        place(data, rank, world_size)
        shares.append(measured(data, "val", 100).index)
        everything = data.measurement_loader("val", 2, shared=True)
        assert torch.equal(joined(batches(data, everything)).index, whole[:2])
    assert sorted(torch.cat(shares).tolist()) == sorted(whole.tolist())
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
