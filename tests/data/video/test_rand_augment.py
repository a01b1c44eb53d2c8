"""RandAugment: what is drawn, and that it is one for all frames."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from critical_periods.data.video.rand_augment import rand_augment


def frame(seed: int = 0, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """Blocks of colour, so that every operation shows."""
    small = np.random.default_rng(seed).integers(30, 220, (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def test_every_frame_meets_the_same_operations():
    for seed in range(100):
        one, other, again = rand_augment([frame(), frame(1), frame()], 9, seed)
        assert one == again and one != other
        assert one.size == other.size == (40, 32) and one.mode == "RGB"
        assert rand_augment([frame(1)], 9, seed) == [other]


def test_how_often_and_how_much_frames_change():
    clean = np.asarray(frame(), float)
    changes = {}
    for magnitude in (1, 5, 9):
        drawn = [rand_augment([frame()], magnitude, seed)[0] for seed in range(400)]
        size = [np.abs(np.asarray(image, float) - clean).mean() for image in drawn]
        # Both of two operations are skipped a quarter of the time, and some change nothing here.
        assert 0.25 - 0.06 < np.mean(np.equal(size, 0)) < 0.5
        changes[magnitude] = np.mean(size)
    assert changes[1] < changes[5] < changes[9]


@pytest.mark.parametrize("magnitude", [0, 10])
def test_the_ends_of_the_scale_are_drawn_too(magnitude: int):
    for seed in range(300):
        rand_augment([frame()], magnitude, seed)


def test_the_generators_of_all_are_left_alone():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    first = rand_augment([frame()], 9, 5)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    assert before[:2] == after[:2] and torch.equal(before[2], after[2])
    random.seed(1)
    np.random.seed(1)
    assert rand_augment([frame()], 9, 5) == first
