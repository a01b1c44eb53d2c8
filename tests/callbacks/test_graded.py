"""Deficits whose strength changes, blur by a Gaussian, contrast, grey, and corruptions."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from small_study import plan_of, write_study
from test_windows import equal, train

from critical_periods.callbacks import DeficitWindow, RobustnessMonitor
from critical_periods.callbacks.windows.strength import Strength
from critical_periods.core.batch import Batch
from critical_periods.core.errors import UserError
from critical_periods.deficits import (
    Blur,
    Greyscale,
    LabelPermutation,
    LowContrast,
    Occlusion,
    VerticalFlip,
)
from critical_periods.deficits.corruptions import CORRUPTIONS, corrupted

IMAGES = torch.randn(3, 2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
BATCH = Batch(IMAGES, torch.arange(3), torch.full((3,), -1), torch.arange(3))


def test_courses():
    course = Strength({"from": 1, "to": 0.2, "epochs": 5})
    values = [course.at(epoch) for epoch in range(7)]
    assert values == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0.2, 0.2])
    assert Strength({"from": 0.3, "to": 1}, length=1).at(0) == 0.3
    for seed in (0, 1):
        order = Strength({"from": 1, "to": 0, "epochs": 8, "shuffled": True})
        drawn = [order.at(epoch, seed) for epoch in range(8)]
        assert sorted(drawn) == pytest.approx([step / 7 for step in range(8)]) != drawn
    assert drawn != [order.at(epoch, 0) for epoch in range(8)] and order.at(8) == 0


def test_a_strength_mixes_and_narrows():
    for deficit in (VerticalFlip(views=[1]), LowContrast(0.1), Occlusion()):
        whole = deficit(BATCH).views
        deficit.strength = 0.25
        assert torch.allclose(deficit(BATCH).views, 0.75 * IMAGES + 0.25 * whole, atol=1e-6)
        deficit.strength = 0.0
        assert torch.equal(deficit(BATCH).views, IMAGES)
    blur = Blur(sigma=2)
    blur.strength = 0.5
    assert torch.equal(blur(BATCH).views, Blur(sigma=1)(BATCH).views)
    blur.strength = 0.0
    assert torch.equal(blur(BATCH).views, IMAGES)


def test_blur_of_a_point_is_a_gaussian():
    point = torch.zeros(1, 1, 25, 25, dtype=torch.float64)
    point[..., 12, 12] = 1
    found = Blur(sigma=1.5).degrade(point)[0, 0]
    weights = [math.exp(-(step**2) / (2 * 1.5**2)) for step in range(-5, 6)]
    for i, j in ((12, 12), (10, 13), (16, 9)):
        wanted = weights[i - 7] * weights[j - 7] / sum(weights) ** 2
        assert found[i, j].item() == pytest.approx(wanted)
    assert Blur(sigma=9).degrade(torch.ones(1, 1, 4, 4)).allclose(torch.ones(1, 1, 4, 4))


def test_contrast_and_grey_by_loops():
    images = IMAGES.flatten(0, 1)
    faded, grey = LowContrast(0.3).degrade(images), Greyscale().degrade(images)
    for n, c in ((0, 0), (4, 2)):
        mean = images[n, c].mean()
        assert faded[n, c].allclose(mean + 0.3 * (images[n, c] - mean), atol=1e-6)
        assert grey[n, c].allclose(sum(images[n]) / 3, atol=1e-6)


def test_corruptions():
    images = Blur(sigma=2).degrade(IMAGES[:, 0].repeat(1, 1, 3, 3))
    for kind in CORRUPTIONS:
        draws = [torch.Generator().manual_seed(0) for _ in range(5)]
        far = [
            (corrupted(images, kind, strength, draws[strength - 1]) - images).norm().item()
            for strength in range(1, 6)
        ]
        assert far == sorted(far) and far[0] > 0
    # 36 rows become round(0.25 · 36) = 9, each of four rows.
    pixels = corrupted(images, "pixelation", 5)
    assert torch.equal(pixels[..., 0, 0], pixels[..., 3, 3])
    assert pixels[..., 5, 9].allclose(images[..., 4:8, 8:12].mean((-2, -1)))
    noise = corrupted(torch.zeros(1, 1, 200, 200), "noise", 4, torch.Generator().manual_seed(1))
    assert noise.std().item() == pytest.approx(0.9, rel=0.02)


def graded(**course: Any) -> DeficitWindow:
    return DeficitWindow(Blur(sigma=3), 0, 3, strength={"from": 1, "to": 0, **course})


def test_a_graded_window_is_resumed_to_the_bit(tmp_path):
    saver = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
    window = graded(shuffled=True)
    whole, _, trainer = train(window, saver, RobustnessMonitor(samples=20), epochs=4)
    assert window.deficit.strength == 1
    found = {n: one.item() for n, one in trainer.callback_metrics.items() if "robustness" in n}
    assert len(found) == 25
    assert found["robustness/mean"] == pytest.approx(
        sum(found[f"robustness/{kind}"] for kind in CORRUPTIONS) / 4
    )
    resumed, _, _ = train(graded(shuffled=True), resume=tmp_path / "step=7.ckpt", epochs=4)
    assert equal(resumed, whole)
    assert not equal(train(graded(), epochs=4)[0], whole)


def test_studies_settle_over_how_long_it_changes(tmp_path: Path):
    deficit = {"class_path": "Blur", "init_args": {"sigma": 3}, "strength": {"from": 1, "to": 0}}
    base = {"trainer.callbacks": []}
    plan = plan_of(write_study(tmp_path, {"deficit": deficit}, base))
    course = plan.configs[0][1]["init_args"]["strength"]
    assert course == {"from": 1, "to": 0, "epochs": 2}
    several = {"deficit": deficit, "windows": {"removal": [1, 2], "epochs_after": 2}}
    with pytest.raises(UserError, match=r"lasts \[1, 2\] epochs in turn.*set strength.epochs"):
        plan_of(write_study(tmp_path, several, base))
    deficit["strength"]["epochs"] = 2
    plan = plan_of(write_study(tmp_path, several, base))
    assert plan.epochs == 2 + 2 + 2 + 4


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Strength({"from": 1}, 3), "strength.to is None; it must lie between 0 and 1"),
        (lambda: Strength({"from": 2, "to": 0}, 3), "strength.from is 2; it must lie"),
        (lambda: Strength({"form": 1, "to": 0}, 3), "unknown field 'strength.form'; did you mean"),
        (lambda: Strength({"from": 1, "to": 0}), "strength needs epochs, over how many it changes"),
        (lambda: Strength({"from": 1, "to": 0, "epochs": 0}), "strength.epochs is 0; it"),
        (
            lambda: DeficitWindow(LabelPermutation(), 0, 3, strength={"from": 1, "to": 0}),
            "LabelPermutation cannot be mixed with clean ones",
        ),
        (lambda: Blur(factor=3, sigma=2), "Blur has factor=3 and sigma=2; give one of them"),
        (lambda: Blur(sigma=0), "sigma=0 of Blur must be above 0"),
        (lambda: LowContrast(1), "contrast=1 of LowContrast must lie from 0 to below 1"),
        (lambda: corrupted(torch.ones(1, 1, 4, 4), "fog", 1), "the corruption 'fog' is unknown"),
        (lambda: corrupted(torch.ones(1, 1, 4, 4), "blur", 6), "strength=6 of a corruption must"),
    ],
)  # fmt: skip
def test_mistakes_get_a_sentence(make: Any, sentence: str):
    with pytest.raises(UserError, match=sentence):
        make()
