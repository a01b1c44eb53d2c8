"""Deficits against independent formulas, and what they must never do."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.deficits import (
    Blur,
    Deficit,
    DeficitSlot,
    Dissociation,
    GaussianNoise,
    LabelNoise,
    LabelPermutation,
    Occlusion,
    OtherMatrix,
    PixelPermutation,
    VerticalFlip,
)

OF_IMAGES = [Blur, Occlusion, GaussianNoise, PixelPermutation, VerticalFlip]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_batch(views: int = 2, size: int = 4, dtype: torch.dtype = torch.float32) -> Batch:
    shape = (size, views, 3, 16, 16)
    images = torch.randint(0, 256, shape, generator=seeded(1)).to(dtype)
    target = torch.arange(size) % 10
    return Batch(images, target, torch.full((size,), -1), torch.arange(size))


def resizing(old: int, new: int) -> Tensor:
    """The matrix [new, old] of antialiased bilinear interpolation along one axis.

    Each new pixel is the mean of the old ones under a triangle around its centre, which is as wide
    as two old pixels or two new ones, whichever are larger.
    """
    scale = old / new
    support = max(scale, 1.0)
    weights = torch.zeros(new, old, dtype=torch.float64)
    for row in range(new):
        centre = (row + 0.5) * scale
        for column in range(old):
            weights[row, column] = max(0.0, 1 - abs(column + 0.5 - centre) / support)
    return weights / weights.sum(1, keepdim=True)


# Blur.


@pytest.mark.parametrize(
    ("size", "factor", "small"),
    [((32, 32), 4, (8, 8)), ((16, 24), 4, (4, 6)), ((30, 14), 3, (10, 5)), ((9, 8), 1.5, (6, 5))],
)
def test_blur_is_two_matrices_on_each_side(size, factor, small):
    images = torch.randn(2, 3, *size, dtype=torch.float64, generator=seeded())
    rows, columns = (
        resizing(few, many) @ resizing(many, few) for many, few in zip(size, small, strict=True)
    )
    expected = rows @ images @ columns.T
    for dtype, atol in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        actual = Blur(factor).degrade(images.to(dtype))
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), expected, rtol=0, atol=atol)
    assert (actual - images).abs().mean() > 0.1


def test_blur_is_what_pillow_does():
    picture = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8, generator=seeded())
    small = Image.fromarray(picture.numpy()).resize((8, 8), Image.Resampling.BILINEAR)
    expected = np.asarray(small.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    blurred = Blur(factor=4).degrade(picture.permute(2, 0, 1)[None])
    actual = blurred[0].permute(1, 2, 0).numpy().astype(int)
    # Pillow rounds after every step, down and along each axis.
    assert abs(actual - expected).max() <= 2
    assert abs(actual - expected).mean() < 0.5


def test_blur_commutes_with_normalising_and_keeps_constants():
    images = a_batch(dtype=torch.float64).views[:, 0]
    blur = Blur(factor=4)
    mean, std = images.mean(), images.std()
    torch.testing.assert_close(
        blur.degrade((images - mean) / std), (blur.degrade(images) - mean) / std
    )
    constant = torch.full((1, 3, 32, 32), 0.7, dtype=torch.float64)
    torch.testing.assert_close(blur.degrade(constant), constant)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.uint8, 0.501), (torch.bfloat16, 1.0), (torch.float16, 0.126)]
)
def test_blur_of_coarser_numbers_is_the_rounded_blur(dtype, tolerance):
    images = torch.randint(0, 256, (2, 3, 16, 16), generator=seeded())
    exact = Blur(2).degrade(images.double())
    actual = Blur(2).degrade(images.to(dtype))
    assert actual.dtype == dtype
    assert (actual.double() - exact).abs().max() <= tolerance
    assert actual.double().std() < 0.8 * images.double().std()


def test_blur_needs_a_factor_above_one_that_leaves_a_pixel():
    for factor in (1, 0.5, -2, float("nan")):
        with pytest.raises(UserError, match=rf"factor={factor} of Blur must be above 1"):
            Blur(factor)
    Blur(16).check(a_batch())
    with pytest.raises(UserError, match="factor=40 of Blur leaves nothing of an image of 16x16"):
        Blur(40).check(a_batch())


# The others.


def test_noise_is_standard_normal():
    noise = GaussianNoise().degrade(torch.full((40, 3, 32, 32), 5.0), seeded())
    count = noise.numel()
    assert noise.mean().abs() < 4 / count**0.5
    assert (noise.var() - 1).abs() < 4 * (2 / count) ** 0.5
    assert (noise.pow(4).mean() - 3).abs() < 4 * (96 / count) ** 0.5
    # Every image and channel its own.
    flat = noise.view(120, -1)
    correlations = (flat @ flat.T / flat.shape[1]).fill_diagonal_(0)
    assert correlations.abs().max() < 5.5 / flat.shape[1] ** 0.5


def test_noise_is_reproducible_by_its_generator():
    batch, noise = a_batch(), GaussianNoise()
    first, again, other = (noise(batch, seeded(seed)).views for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
    state = torch.get_rng_state()
    noise(batch, seeded())
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(0)
    first = noise(batch).views
    torch.manual_seed(0)
    assert torch.equal(first, noise(batch).views)
    with pytest.raises(UserError, match=r"GaussianNoise replaces normalised images.*torch.uint8"):
        GaussianNoise().check(a_batch(dtype=torch.uint8))


def test_pixels_are_reordered_alike_in_all_images_channels_and_views():
    places = torch.arange(256.0).view(16, 16).expand(4, 2, 3, 16, 16)
    batch = a_batch()._replace(views=places.contiguous())
    found = PixelPermutation(seed=3)(batch).views
    order = found[0, 0, 0].flatten()
    assert torch.equal(order.sort().values, torch.arange(256.0)) and (order.diff() != 1).any()
    assert torch.equal(found, order.view(16, 16).expand_as(found))
    images = a_batch().views.flatten(0, 1)
    moved = PixelPermutation(seed=3).degrade(images.to(memory_format=torch.channels_last))
    assert torch.equal(moved.flatten(-2), images.flatten(-2)[..., order.long()])
    assert not torch.equal(PixelPermutation(seed=4)(batch).views, found)


def test_vertical_flip_reverses_rows_and_twice_is_identity():
    batch, flip = a_batch(), VerticalFlip()
    assert torch.equal(flip(batch).views, batch.views[..., range(15, -1, -1), :])
    assert torch.equal(flip(flip(batch)).views, batch.views)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bfloat16])
def test_occlusion_is_zero(dtype):
    batch = a_batch(dtype=dtype)
    occluded = Occlusion(views=[1])(batch).views
    assert occluded.dtype == dtype
    assert not occluded[:, 1].any() and torch.equal(occluded[:, 0], batch.views[:, 0])


# Labels.


def with_target(target: Tensor, whose: list[int] | None = None) -> Batch:
    size = len(target)
    whose_view = torch.full((size,), -1) if whose is None else torch.tensor(whose)
    return Batch(torch.zeros(size, 2, 1, 2, 2), target, whose_view, torch.arange(size))


@pytest.mark.parametrize("classes", [2, 400])
def test_labels_are_permuted_by_one_fixed_permutation(classes):
    everything, state = with_target(torch.arange(classes)), torch.get_rng_state()
    renamed = [LabelPermutation(seed, classes)(everything).target for seed in range(20)]
    for permutation in renamed:
        assert torch.equal(permutation.sort().values, torch.arange(classes))
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(5)
    assert torch.equal(renamed[0], LabelPermutation(0, classes)(everything).target)
    assert len({tuple(permutation.tolist()) for permutation in renamed}) > 1
    twice = with_target(torch.tensor([1, 0, 1, 1]))
    assert torch.equal(LabelPermutation(0, classes)(twice).target, renamed[0][twice.target])


def test_soft_targets_agree_with_hard_ones():
    deficit, hard = LabelPermutation(seed=3, num_classes=6), torch.tensor([0, 5, 2, 2, 4])
    expected = torch.eye(6)[deficit(with_target(hard)).target]
    assert torch.equal(deficit(with_target(torch.eye(6)[hard])).target, expected)
    mixed = torch.softmax(torch.randn(5, 6, generator=seeded()), dim=1)
    assert torch.equal(deficit(with_target(mixed)).target[:, deficit.permutation], mixed)


def test_labels_of_any_whole_type_and_samples_without_one():
    deficit = LabelPermutation(seed=0, num_classes=10)
    for dtype in (torch.uint8, torch.int8, torch.int32, torch.int64):
        target = torch.tensor([0, 9, 3, 1]).to(dtype)
        renamed = deficit(with_target(target)).target
        assert renamed.dtype == dtype
        assert torch.equal(renamed.long(), deficit.permutation[target.long()])
    renamed = deficit(with_target(torch.tensor([-100, 3, -1]))).target
    assert renamed[[0, 2]].tolist() == [-100, -1] and renamed[1] >= 0


@pytest.mark.parametrize("soft", [False, True])
def test_labels_of_named_views_alone(soft):
    target, whose = torch.tensor([1, 1, 2, 2, 3]), [-1, 0, 1, 1, 0]
    batch = with_target(torch.eye(10)[target] if soft else target, whose)
    everyone, second = LabelPermutation(seed=2), LabelPermutation(seed=2, views=[1])
    for place, view in enumerate(whose):
        expected = everyone(batch).target[place] if view == 1 else batch.target[place]
        assert torch.equal(second(batch).target[place], expected)


@pytest.mark.parametrize(
    ("target", "found"),
    [(torch.tensor([0, 7, 3]), 8), (torch.eye(10)[:3], 10), (torch.eye(4)[:3], 4)],
)
def test_labels_that_do_not_fit_the_data(target, found):
    deficit = LabelPermutation(num_classes=5)
    with pytest.raises(UserError, match=rf"num_classes=5 of LabelPermutation .* reach {found} cl"):
        deficit.check(with_target(target))
    deficit.check(with_target(torch.tensor([0, 4, -1])))
    with pytest.raises(UserError, match="num_classes=1 of LabelPermutation must be at least 2"):
        LabelPermutation(num_classes=1)


# All of them.


@pytest.mark.parametrize("views", [None, [1]])
@pytest.mark.parametrize("cls", [*OF_IMAGES, LabelPermutation])
def test_nothing_is_edited_in_place_and_shapes_stay(cls, views):
    deficit, batch = cls(views=views), a_batch()
    # One picture seen by both views, as a DataModule with shared augmentation has it.
    shared = batch.views[:, :1].expand(-1, 2, -1, -1, -1)
    batch = batch._replace(views=shared, target_view=torch.tensor([-1, 0, 1, 1]))
    before = Batch(*(part.clone() for part in batch))
    result = deficit(batch, seeded())
    assert all(torch.equal(a, b) for a, b in zip(batch, before, strict=True))
    edits = "target" if deficit.edits_target else "views"
    for name, part, original in zip(Batch._fields, result, batch, strict=True):
        assert part.shape == original.shape and part.dtype == original.dtype
        assert (part is original) == (name != edits)
    assert not torch.equal(getattr(result, edits), getattr(batch, edits))


@pytest.mark.parametrize("views", [None, [0, 1], [1]])
def test_a_deficit_of_ones_own_may_work_in_place(views):
    class Dim(Deficit):
        def degrade(self, images, generator=None):
            return images.mul_(0.1)

    data = torch.ones(8, 2, 3, 4, 4)
    batch = Batch(data[2:4], torch.zeros(2), torch.full((2,), -1), torch.arange(2))
    assert (Dim(views=views)(batch).views[:, 1] == 0.1).all()
    assert (data == 1).all()


@pytest.mark.parametrize("chosen", [[0], [1], [2, 0], [0, 1, 2]])
@pytest.mark.parametrize("cls", OF_IMAGES)
def test_only_named_views_are_touched(cls, chosen):
    batch = a_batch(views=3)
    result = cls(views=chosen)(batch, seeded())
    for view in range(3):
        assert torch.equal(result.views[:, view], batch.views[:, view]) == (view not in chosen)
    alone = cls().degrade(batch.views[:, 1], seeded())
    if cls is not GaussianNoise and 1 in chosen:
        torch.testing.assert_close(result.views[:, 1], alone)


@pytest.mark.parametrize("cls", [*OF_IMAGES, LabelPermutation])
def test_a_view_that_the_data_lacks(cls):
    cls(views=[0, 1]).check(a_batch(views=2))
    for views, available in ([1, 2], "2 views"), ([1], "1 view"):
        expected = f"views={views} of {cls.__name__} names view {views[-1]}, but the data has "
        with pytest.raises(UserError, match=re.escape(f"{expected}{available},")):
            cls(views=views).check(a_batch(views=int(available[0])))


def test_views_that_are_none():
    for views in ([], [-1], (1, 2, 1)):
        with pytest.raises(UserError, match=r"views=\[.*\] of Blur must name different views"):
            Blur(views=views)


def test_settings_show():
    assert repr(Blur(2, views=[1])) == "Blur(factor=2, views=[1])"
    assert repr(LabelPermutation(3, 4)) == "LabelPermutation(seed=3, num_classes=4, views=None)"
    assert repr(Occlusion()) == "Occlusion(views=None)"
    assert repr(Dissociation(0.25, views=[1])) == "Dissociation(p=0.25, views=[1])"
    assert repr(LabelNoise(0.25)) == "LabelNoise(p=0.25)"
    assert repr(OtherMatrix(3, 4)) == "OtherMatrix(rank=3, seed=4, views=None)"


# The slot.


def test_slot_applies_deficits_in_order_and_empties():
    slot, batch = DeficitSlot(), a_batch()
    slot.fill([Occlusion(), GaussianNoise()])
    assert slot(batch, seeded()).views.all()
    slot.fill(iter([GaussianNoise(), Occlusion()]))
    assert not slot(batch, seeded()).views.any()
    slot.fill([])
    assert slot(batch) is batch


def test_slot_hands_on_its_generator():
    slot, batch = DeficitSlot(), a_batch()
    slot.fill([GaussianNoise(views=[0]), GaussianNoise(views=[1])])
    noise = slot(batch, seeded(1)).views
    assert torch.equal(noise, slot(batch, seeded(1)).views)
    assert not torch.equal(noise[:, 0], noise[:, 1])
