"""What one view tells of another, against oracles that know and a loop over patches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_runs import clean_samples, quiet_trainer
from torch import Tensor

from critical_periods.callbacks import ReconstructionMonitor
from critical_periods.core.errors import UserError
from critical_periods.data import StereoDigitsDataModule
from critical_periods.models import MLP, MultiViewTransformer
from critical_periods.models.multi_view.patches import to_patches
from critical_periods.tasks import ClassificationTask, MaskedReconstructionTask
from critical_periods.tasks.transformer_recipe import TransformerRecipe

RECIPE = TransformerRecipe(epochs=1, base_rate=0.0, warmup_epochs=0)
PATCH, VIEWS, PATCHES = 4, 2, 16


def a_task(mask_ratio: float = 0.75, num_views: int = VIEWS) -> MaskedReconstructionTask:
    torch.manual_seed(0)
    network = MultiViewTransformer(
        width=8, depth=1, heads=2, patch=PATCH, image_size=16, in_channels=1, num_views=num_views
    )
    return MaskedReconstructionTask(
        network, RECIPE, mask_ratio, decoder_width=8, decoder_depth=1, decoder_heads=2, pictures=0
    )


def digits(batch_size: int = 50) -> StereoDigitsDataModule:
    return StereoDigitsDataModule(width=16, batch_size=batch_size, limit_train=50)


def measured(
    folder: Path, task: Any, batch_size: int = 50, samples: int | None = 100, pictures: int = 4
) -> dict[str, float]:
    """own_view, other_view and both_views, at the end of an epoch that changes nothing."""
    monitor = ReconstructionMonitor(samples=samples, pictures=pictures)
    settings = {"limit_val_batches": 0, "default_root_dir": folder}
    trainer = quiet_trainer(monitor, max_epochs=1, **settings)
    trainer.fit(task, digits(batch_size))
    return {
        name.removeprefix("reconstruction/"): float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("reconstruction/")
    }


def seen_of(visible: Tensor, view: int) -> Tensor:
    """How many patches of a view each sample shows."""
    return ((visible >= view * PATCHES) & (visible < (view + 1) * PATCHES)).sum(1)


def test_an_oracle_that_needs_its_own_view(monkeypatch, tmp_path: Path):
    """It knows the views of which it sees a patch, and says 0 for the others."""

    def oracle(self: Any, views: list[Tensor], visible: Tensor) -> list[Tensor]:
        return [view * (seen_of(visible, v) > 0).all() for v, view in enumerate(views)]

    monkeypatch.setattr(MaskedReconstructionTask, "reconstruct", oracle)
    found = measured(tmp_path, a_task())
    assert found["own_view"] == found["both_views"] == 0
    # Normalised pixels have mean 0 and variance 1, roughly.
    assert found["other_view"] == pytest.approx(1, abs=0.05)


def test_saying_the_mean_everywhere_is_an_error_of_one(monkeypatch, tmp_path: Path):
    mean = clean_samples(digits(), "val").views.double().mean()

    def oracle(self: Any, views: list[Tensor], visible: Tensor) -> list[Tensor]:
        return [torch.full_like(view, float(mean)) for view in views]

    monkeypatch.setattr(MaskedReconstructionTask, "reconstruct", oracle)
    # Nearly all patches are hidden once, so that their mean is nearly that of all.
    found = measured(tmp_path, a_task(mask_ratio=31 / 32), samples=None)
    assert all(value == pytest.approx(1, abs=2e-3) for value in found.values())


def test_against_a_loop_over_hidden_patches(monkeypatch, tmp_path: Path):
    calls: list[tuple[list[Tensor], Tensor, list[Tensor]]] = []
    reconstruct = MaskedReconstructionTask.reconstruct

    def recording(self: Any, views: list[Tensor], visible: Tensor) -> list[Tensor]:
        calls.append((list(views), visible, reconstruct(self, views, visible)))
        return calls[-1][2]

    monkeypatch.setattr(MaskedReconstructionTask, "reconstruct", recording)
    found = measured(tmp_path, a_task(), pictures=0)
    assert not (tmp_path / "reconstruction").exists()
    assert len(calls) == 2 * 3
    errors: dict[str, list[float]] = {"own_view": [], "other_view": [], "both_views": []}
    pixels: list[Tensor] = []
    for first in (0, 3):
        views, *_ = calls[first]
        sets = [calls[first + v][1] for v in range(VIEWS)]
        for visible in sets:
            assert visible.shape[1] == 8  # a quarter of 32
        both = calls[first + 2][1]
        assert seen_of(both, 0).tolist() == seen_of(both, 1).tolist() == [4] * 50
        for sample in range(len(views[0])):
            shown = set(sets[0][sample].tolist()) | set(sets[1][sample].tolist())
            assert set(both[sample].tolist()) <= shown
            for view in range(VIEWS):
                hidden = [i for i in range(PATCHES) if i + view * PATCHES not in shown]
                assert len(hidden) == 8
                target = to_patches(views[view], PATCH)[sample, hidden].double()
                pixels.append(target)
                names = {view: "own_view", 1 - view: "other_view", 2: "both_views"}
                for source, name in names.items():
                    guess = calls[first + source][2][view]
                    guess = to_patches(guess, PATCH)[sample, hidden].double()
                    errors[name].append(float((guess - target).square().mean()))
    variance = float(torch.cat([one.flatten() for one in pixels]).var(correction=0))
    for name, values in errors.items():
        assert found[name] == pytest.approx(sum(values) / len(values) / variance, rel=1e-5)


def test_it_does_not_depend_on_batches_and_draws_what_each_view_tells(tmp_path: Path):
    one, other = (measured(tmp_path, a_task(), size) for size in (50, 17))
    assert one == pytest.approx(other, rel=1e-5)
    pictures = sorted((tmp_path / "reconstruction").iterdir())
    assert [one.name for one in pictures] == [f"epoch_0000_from_view_{v}.png" for v in range(2)]
    with Image.open(pictures[0]) as picture:
        # Four columns for each of two views, enlarged to 96 pixels, with gaps.
        assert picture.width == 2 * 4 * (96 + 4)


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (lambda: a_task(num_views=1), "needs at least two views"),
        (lambda: ClassificationTask(MLP()), "measures a MaskedReconstructionTask, but this is a"),
    ],
)
def test_what_cannot_be_measured_is_said_before_training(task, sentence):
    with pytest.raises(UserError, match=sentence):
        ReconstructionMonitor().setup(quiet_trainer(), task(), "fit")
