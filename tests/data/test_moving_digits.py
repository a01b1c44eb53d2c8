"""Moving digits: motion that no single frame has, the splits, the files and what can be learned."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import batches, evaluated, joined, measured, ridge, training
from torch import Tensor

from critical_periods.core.errors import UserError
from critical_periods.data import KineticsDataModule, MovingDigitsDataModule
from critical_periods.data.digits import read_digits
from critical_periods.data.moving_digits import on_torus
from critical_periods.data.video.frames import read_frames
from critical_periods.data.video.moving_digits_video import write_videos
from critical_periods.deficits import Dissociation, LabelPermutation

MOTIONS = {
    4: [(0, 1), (1, 0), (0, -1), (-1, 0)],
    8: [(0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1)],
}


def ready(**settings: Any) -> MovingDigitsDataModule:
    data = MovingDigitsDataModule(**settings)
    data.setup()
    return data


def grey(data: MovingDigitsDataModule, views: Tensor) -> Tensor:
    """Brightness of the frames [N, 2, S, S]."""
    return views[:, :, 0] * data.std[0] + data.mean[0]


# One scene.


def test_a_frame_equals_a_plain_loop():
    draws = torch.Generator().manual_seed(0)
    figures = torch.rand(3, 2, 4, 5, generator=draws)
    ground = torch.rand(3, 2, 4, 5, generator=draws)
    places = torch.randint(-9, 10, (3, 6, 2), generator=draws)
    frames = on_torus(figures, ground, places)
    for b, t, c, y, x in np.ndindex(3, 6, 2, 4, 5):
        p, q = places[b, t].tolist()
        opacity = figures[b, c, (y - p) % 4, (x - q) % 5]
        expected = opacity + (1 - opacity) * ground[b, c, y, x]
        assert frames[b, t, c, y, x] == expected


def fits(frame: Tensor, layer: Tensor) -> tuple[Tensor, Tensor]:
    """The ground that a frame would have under a layer, where it shows, and whether it may be one.

    Args:
        frame: brightness [S, S].
        layer: opacity at any places, [..., S, S].
    """
    shows = layer < 0.95
    ground = torch.where(shows, (frame - layer) / (1 - layer).clamp(min=0.05), torch.nan)
    # Bicubic noise of brightness 0.1 to 0.35; nan compares as false.
    return ground, ~((ground < -1e-3) | (ground > 0.351)).flatten(-2).any(-1)


@pytest.mark.parametrize(("label", "directions"), [("motion", 8), ("digit", 4), ("both", 4)])
def test_the_second_frame_shows_the_digit_a_step_on(label, directions):
    """Finds digit and motion by trying all places in both frames, on a ground that stays."""
    size, step = 20, 3
    data = ready(label=label, directions=directions, size=size, step=step)
    places = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    for images, batch in zip(data.load(), (training(data, 2), evaluated(data)), strict=True):
        for index, target, views in zip(
            batch.index[:25], batch.target[:25], grey(data, batch.views[:25]), strict=True
        ):
            figure, digit = images.pixels[index, 0] / 255, int(images.target[index])
            layers = torch.stack([figure.roll((y, x), (0, 1)) for y, x in places.tolist()])
            found = set()
            for start in fits(views[0], layers)[1].nonzero().flatten():
                ground, _ = fits(views[0], layers[start])
                for number, motion in enumerate(MOTIONS[directions]):
                    y, x = (places[start] + step * torch.tensor(motion)) % size
                    other, may_be = fits(views[1], layers[y * size + x])
                    if may_be and not ((ground - other).abs() > 1e-3).any():
                        found.add(number)
            (motion,) = found
            both = digit // 2 * directions + motion
            assert target == {"motion": motion, "digit": digit, "both": both}[label]


# Either frame alone: the same in all directions.


@pytest.mark.parametrize(("size", "step", "directions"), [(16, 2, 4), (17, 5, 8), (24, 2, 8)])
def test_over_all_places_a_frame_shows_the_same_whatever_the_direction(size, step, directions):
    """The proof, pixel by pixel: all places being as likely, frames are equally distributed."""
    draws = torch.Generator().manual_seed(0)
    figure, ground = torch.rand(2, 1, 1, size, size, generator=draws)
    places = torch.cartesian_prod(torch.arange(size), torch.arange(size))
    # A stand-in for the frame that tells any two apart.
    key = torch.rand(size * size, generator=draws, dtype=torch.float64)
    laws = []
    for motion in ((0, 0), *MOTIONS[directions]):
        moved = places + step * torch.tensor(motion)
        frames = on_torus(figure, ground, moved[None]).flatten(2)[0]
        laws.append((frames.double() @ key).sort().values)
    for law in laws[1:]:
        assert torch.allclose(law, laws[0], rtol=0, atol=1e-9)
    assert laws[0].diff().min() > 1e-7


def test_places_and_directions_are_uniform_and_independent():
    """Chi-square tests of place by direction, in either frame, from the film of a lone dot."""
    size, step, directions = 16, 3, 8
    data = ready(label="motion", size=size, step=step, directions=directions, batch_size=1000)
    dot = torch.zeros(1000, 1, size, size, dtype=torch.uint8)
    dot[:, :, 0, 0] = 255
    counts = torch.zeros(2, size * size, directions)
    epochs = 40
    for epoch in range(epochs):
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        for draw in loader:
            _, digits = data.transfer_batch_to_device(draw, torch.device("cpu"), 0)
            film = data.film(dot, draw, torch.tensor([0, step])).flatten(2)
            for frame, where in enumerate(film.argmax(2).unbind(1)):
                counts[frame].view(-1).index_add_(
                    0, where * directions + digits.target, torch.ones(1000)
                )
    cells = size * size * directions
    expected = epochs * 1000 / cells
    for table in counts:
        chi = ((table - expected).square() / expected).sum()
        assert abs(chi - (cells - 1)) < 5 * (2 * (cells - 1)) ** 0.5


def test_directions_do_not_depend_on_the_digit():
    data = ready(label="both", batch_size=1000)
    table = sum(training(data, epoch).target.bincount(minlength=20) for epoch in range(40))
    table = table.view(5, 4).double()
    expected = table.sum(1, keepdim=True) / 4
    chi = ((table - expected).square() / expected).sum()
    assert abs(chi - 15) < 5 * 30**0.5
    test = evaluated(data).target.bincount(minlength=20).view(5, 4)
    assert (test == test[:, :1]).all()


def test_a_linear_reader_of_products_needs_both_frames():
    """Products of pixels a step apart: of the two frames, or twice of the same."""
    data = ready(label="motion", batch_size=1000)
    batches = joined([training(data, epoch) for epoch in range(4)]), evaluated(data)

    def accuracy(a: int, b: int) -> float:
        def features(views: Tensor) -> Tensor:
            shifted = [views[:, b].roll((2 * y, 2 * x), (1, 2)) for y, x in MOTIONS[4]]
            difference = [(views[:, a] - one).square().sqrt().mean((1, 2)) for one in shifted]
            return torch.stack(difference, 1)

        return ridge(*batches, features, 1)

    assert accuracy(1, 0) > 0.9
    error = (0.25 * 0.75 / 3188) ** 0.5
    for frame in (0, 1):
        assert abs(accuracy(frame, frame) - 0.25) < 4 * error
        linear = ridge(*batches, lambda views, frame=frame: views[:, frame].flatten(1), 1)
        assert abs(linear - 0.25) < 4 * error


# Splits and draws.


def test_training_digits_once_and_test_digits_once_in_each_direction():
    data = ready(label="motion", directions=8)
    assert training(data).index.sort().values.tolist() == list(range(1000))
    test = evaluated(data)
    assert test.target.bincount().tolist() == [797] * 8
    _, digits = read_digits()
    shown = data.load()[1]
    for direction in range(8):
        of_it = shown.pixels[test.index[test.target == direction]]
        assert torch.equal(of_it[:, :, :16, :16], digits.pixels)
        assert not of_it[:, :, 16:].any() and not of_it[:, :, :, 16:].any()


def test_constants_are_those_of_the_training_frames():
    views = torch.cat([training(ready(), epoch).views for epoch in range(3)])
    assert views.mean().abs() < 0.02 and (views.std() - 1).abs() < 0.02
    brightness = grey(ready(), views)
    assert brightness.min() > -1e-6 and brightness.max() < 1 + 1e-6


# Deficits.


def test_dissociation_keeps_the_group_of_one_frame_and_no_motion():
    data = ready(batch_size=250)
    clean = training(data, epoch=1)
    data.deficits.fill([Dissociation(p=0.5)])
    batch = training(data, epoch=1)
    assert torch.equal(batch.views[:, 0], clean.views[:, 0])
    assert ((batch.target_view == 1).double().mean() - 0.5).abs() < 4 * 0.5 / 1000**0.5
    left = batch.target_view == 0
    assert torch.equal(batch.target[left], clean.target[left])
    # Whose second frame is it? That one's class is the target where the target is the right one's.
    source = torch.cdist(batch.views[:, 1].flatten(1), clean.views[:, 1].flatten(1)).argmin(1)
    assert (source != torch.arange(1000)).all()
    assert torch.equal(batch.target[~left], clean.target[source[~left]])


def test_a_permutation_of_the_labels_knows_the_number_of_classes():
    data = ready(label="both")
    clean = training(data)
    data.deficits.fill([LabelPermutation(num_classes=20)])
    mapped = training(data).target
    table = {(int(a), int(b)) for a, b in zip(clean.target, mapped, strict=True)}
    assert len(table) == 20 and sorted(b for _, b in table) == list(range(20))


EIGHT = ["right", "down_right", "down", "down_left", "left", "up_left", "up", "up_right"]
GROUPS = ("0_1", "2_3", "4_5", "6_7", "8_9")


@pytest.mark.parametrize(
    ("label", "directions", "names"),
    [
        ("motion", 4, ["right", "down", "left", "up"]),
        ("motion", 8, EIGHT),
        ("digit", 8, list("0123456789")),
        ("both", 4, [f"{group}_{motion}" for group in GROUPS for motion in EIGHT[::2]]),
        ("both", 8, [f"{group}_{motion}" for group in GROUPS for motion in EIGHT]),
    ],
)
def test_the_classes_follow_from_the_label(label, directions, names):
    data = MovingDigitsDataModule(label=label, directions=directions)
    assert data.class_names == names and data.num_classes == len(names)
    data.setup()
    assert data.num_classes == len(names)
    assert evaluated(data).target.unique().tolist() == list(range(len(names)))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"label": "moton"}, "label='moton' of the moving digits is unknown; .*'motion'"),
        ({"size": 15}, "size=15 of the moving digits must be at least 16 pixels"),
        ({"step": 0}, "step=0 of the moving digits must lie between 1 and 11"),
        ({"step": 12}, "step=12 .* below half of their size=24"),
        ({"step": 9, "size": 17}, "step=9 .* between 1 and 8 pixels"),
        ({"directions": 6}, "directions=6 of the moving digits must be 4 or 8"),
    ],
)
def test_settings_that_do_not_fit(settings, sentence):
    with pytest.raises(UserError, match=sentence):
        ready(**settings)


# Files.


def test_frames_of_the_files_are_the_scenes(tmp_path: Path):
    data = ready(step=3)
    write_videos(tmp_path, data, train=12, val=9, seconds=1.0)
    for folder, split, number in (("train", "train", 12), ("val", "test", 9)):
        loader = data.measurement_loader(split, number)
        draw, digits = data.transfer_batch_to_device(next(iter(loader)), torch.device("cpu"), 0)
        film = data.film(digits.pixels, draw, torch.arange(9))[:, :, 0]
        # Two frames 1/3 s apart are the two views.
        (batch,) = batches(data, loader)
        assert torch.allclose(film[:, [0, 3]], grey(data, batch.views), atol=1e-6)
        assert len(list(tmp_path.glob(f"{folder}/*/*.mp4"))) == number
        for index, target, frames in zip(batch.index, batch.target, film, strict=True):
            file = tmp_path / folder / data.class_names[target] / f"{index:05d}.mp4"
            images = np.stack(read_frames(file, [n / 9 for n in range(9)]).images)
            error = (torch.from_numpy(images) / 255 - frames[..., None]).abs()
            assert images.shape == (9, 24, 24, 3)
            assert error.mean() < 0.01 and error.max() < 0.06


def test_kinetics_reads_the_same_task(tmp_path: Path):
    data = ready(label="motion", batch_size=7)
    write_videos(tmp_path, data, train=12, val=16, seconds=0.6)
    settings = {"batch_size": 5, "num_workers": 0, "delay": 1, "image_size": data.size}
    kinetics = KineticsDataModule(tmp_path, **settings)
    kinetics.setup()
    assert kinetics.class_names == sorted(data.class_names)
    read, scenes = evaluated(kinetics), measured(data, "test", 16)
    names = [Path(os.fsdecode(kinetics._clips["val"].paths[index])) for index in read.index]
    number = torch.tensor([int(name.stem) for name in names])
    order, expected = number.argsort(), scenes.index.argsort()
    assert torch.equal(number[order], scenes.index[expected])
    classes = [data.class_names[target] for target in scenes.target[expected]]
    assert classes == [kinetics.class_names[target] for target in read.target[order]]
    assert classes == [names[place].parts[-2] for place in order]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    colours = read.views[order].movedim(2, -1) * std + mean
    error = (colours - grey(data, scenes.views)[expected][..., None]).abs()
    assert error.flatten(1).mean(1).max() < 0.01 and error.max() < 0.06


@pytest.mark.parametrize(
    ("settings", "numbers", "sentence"),
    [
        ({"size": 25}, {}, "size=25 of the moving digits must be even in a video"),
        ({}, {"seconds": 0.3}, r"seconds=0.3 are too short .* at least 0.50"),
        ({"limit_train": 50}, {"train": 51}, "train=51 clips are more than the 50 samples of the"),
        ({}, {"train": 1, "val": 3189}, "val=3189 clips are more than the 3188 samples"),
    ],
)
def test_files_that_cannot_be(settings, numbers, sentence, tmp_path: Path):
    with pytest.raises(UserError, match=sentence):
        write_videos(tmp_path, MovingDigitsDataModule(**settings), **numbers)
